"""`refmodel dumps match`: find out what the arrays of a dump are."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DumpError
from ..machine.files import check_target, whole
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import AsJson, Chunks, Decode, Prompt, RouteText, Special, Threads, TokenText, calls_of, file_of, model_of, token_ids

app = typer.Typer(help="What other programs dumped.")


@app.callback()
def dumps() -> None:
    """What other programs dumped."""


@app.command()
def match(
    dump: Annotated[Path, typer.Argument(metavar="DUMP", help="The dump: a file or a folder of any format that is read.")],
    model: Annotated[str, typer.Option("--model", help="The model that the program ran.", metavar="MODEL")],
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    decode: Decode = 0,
    chunks: Chunks = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the map here, for --map.", metavar="FILE")] = None,
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find for each array the tap, axes, head order and tokens by its numbers, and write a map. Names are not asked."""
    use(threads)
    from ..compare.matching import matched, rules_of, sure
    from ..dumps.map_file import as_toml
    from ..dumps.read import read
    from ..numerics import REFERENCE
    from ..report import matching as show
    from ..report.progress import watching

    loaded, found = model_of(model), read(file_of(str(dump)))
    calls = calls_of(token_ids(loaded, prompt, tokens, special), decode, chunks) if prompt or tokens else found.calls
    if not calls:
        raise DumpError(f"{dump}: does not say which tokens it ran; give them, --tokens 1,2,3 or -p TEXT")
    if output:
        check_target(output, loaded.file.parts)
    prepare(loaded, REFERENCE, calls)
    with watching(err, "matching") as seen:
        matches, taps = matched(loaded, found, calls, loaded.route(route or found.about.get("route")), seen)
    if output:
        with whole([output]) as (file,):
            file.write(as_toml(rules_of(matches, taps)).encode())
    if as_json:
        out.json(show.matches_json(matches, sure(matches), str(output or "")))
    else:
        out.print(show.matches_table(matches))
        out.print(show.matches_line(matches, sure(matches)), markup=False, soft_wrap=True)
    raise typer.Exit(0 if sure(matches) else 1)
