"""`refmodel verify`: prove a routed copy."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import RefmodelError
from ..machine.truncated import say_so
from ..report.console import err, out
from .options import SHIPPED, AsJson, LlamaLib, LlamaPython, TokenText, file_of, llama_of, whole_numbers
from .pages import Html, Md, reports_of


def verify(
    copy: Annotated[Path, typer.Argument(metavar="COPY", help="A routed GGUF (the first part of a split one) or folder.")],
    source: Annotated[
        list[str], typer.Option("--source", help=f"The model it was made from, or {SHIPPED}; several if it has blocks of several.")
    ],
    route: Annotated[str, typer.Option("--route", help="The route that it should have. Default: recovered from the hashes.")] = "",
    against: Annotated[
        str, typer.Option(help="llamacpp: also run the copy in llama.cpp. transformers: also run both folders in transformers.")
    ] = "",
    llama_lib: LlamaLib = None,
    llama_python: LlamaPython = "",
    tokens: TokenText = "",
    forward: Annotated[bool, typer.Option("--forward/--no-forward", help="Run both models and compare every bit.")] = True,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
) -> None:
    """Prove that a copy is its source under a route: structure, seams, bytes, metadata, and what it computes."""
    from ..report.progress import watching
    from ..report.surgery import proof
    from ..report.verify_page import verify_page
    from ..surgery.verify import Options
    from ..surgery.verify import verify as prove

    if against not in ("", "llamacpp", "transformers"):
        raise RefmodelError(
            f"--against {against}: expected llamacpp, or for folders transformers; leave it out to compare with the source only"
        )
    reports = reports_of(html, md, None, as_json, [copy, *map(Path, source)])
    with watching(err, "proving") as seen:
        ids = whole_numbers(tokens) if tokens else []
        options = Options(ids, forward, against == "llamacpp", llama_of(llama_lib, llama_python), against == "transformers", seen)
        first, *others = map(file_of, source)
        said = file_of(str(copy))
        say_so([said, first, *others])
        report = prove(said, first, route, options, others)
    if as_json:
        out.json(report.as_json())
    elif not md:
        proof(out, report)
    reports.give(lambda: verify_page(report))
    raise typer.Exit(report.status)
