"""`refmodel diagnose`: name the bug of another program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DumpError, RefmodelError
from ..machine.partial import temporary_folder
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .diff import Asked, other_side
from .diff_options import LIVE
from .dumps import Map, nothing_compared, of_model
from .options import (
    AsJson,
    Chunks,
    Decode,
    LlamaLib,
    LlamaPython,
    ModelPath,
    Prompt,
    RouteText,
    Special,
    Threads,
    TokenText,
    calls_of,
    llama_of,
    model_of,
    profile_of,
    token_ids,
)
from .pages import Html, Md, Png, Reports, reports_of

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..faults.diagnosis.diagnosis import Diagnosis
    from ..model.model import Model

Against = Annotated[
    str,
    typer.Option(
        help=f"What the other program computed: {LIVE}, a trace or dump of any program (a file or a folder), or the tokens or the "
        "text that it wrote after the prompt."
    ),
]
ProfileText = Annotated[str, typer.Option("--profile", help="With llamacpp: how it runs, as for diff.")]
Suggest = Annotated[bool, typer.Option("--suggest", help="If faults cannot be told apart: print the tokens that would tell them.")]


def diagnose(
    model: ModelPath,
    against: Against = LIVE,
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    profile: ProfileText = "",
    llama_lib: LlamaLib = None,
    llama_python: LlamaPython = "",
    decode: Decode = 0,
    chunks: Chunks = "",
    names: Map = None,
    suggest: Suggest = False,
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
    png: Png = None,
) -> None:
    """Name the fault that explains another program's numbers: the evidence, our code that does it right, and how sure that is."""
    use(threads)
    reports = reports_of(html, md, png, as_json, [Path(model), Path(against)])
    loaded = model_of(model)
    if of_model(against):
        raise RefmodelError(
            f"--against {against}: is a model; give what a program computed with one, or use `refmodel info --audit`"
        )
    if against != LIVE and (profile or llama_lib or llama_python):
        raise RefmodelError("--profile, --llama-lib and --llama-python are for a live llama.cpp; leave them out")
    asks = prompt or tokens or against == LIVE
    calls = calls_of(token_ids(loaded, prompt, tokens, special), decode, chunks) if asks else None
    asked = Asked(loaded, None, profile_of(profile) if profile else None, llama_of(llama_lib, llama_python))
    with temporary_folder() as folder:
        raise typer.Exit(answer(asked, against, route, calls, folder, names, suggest, as_json, reports, threads))


def answer(
    asked: Asked,
    against: str,
    route: str,
    calls: "list[list[int]] | None",
    folder: Path,
    names: Path | None,
    suggest: bool,
    as_json: bool,
    reports: Reports,
    threads: int | None,
) -> int:
    """Diagnose and print. Returns the exit status: 0 if nothing is wrong, else 1."""
    from ..faults.diagnosis.diagnosis import HEALTHY, diagnose
    from ..faults.diagnosis.search import small
    from ..faults.library import FAULTS
    from ..numerics import REFERENCE
    from ..report import diagnosis as show
    from ..report.diagnosis_page import diagnosis_page
    from ..report.progress import watching

    other = recorded(asked, against, route, calls, folder, names)
    if not other.taps:
        nothing_compared(against, other, as_json)
    prepare(asked.model, REFERENCE, other.calls)
    if threads is None and small(asked.model, other):
        use(1)  # hundreds of passes of milliseconds: two threads wait for each other longer than they compute
    with watching(err, "trying") as seen:
        found = diagnose(asked.model, other, FAULTS.values(), seen, calls)
    telling = telling_apart(asked.model, other, found) if suggest else None
    if as_json:
        out.json(show.as_json(found, telling))
    elif not reports.md:
        out.print(show.in_words(found, telling), soft_wrap=True)
    reports.give(lambda: diagnosis_page(found, asked.model, other, telling))
    return 0 if found.verdict == HEALTHY else 1


def recorded(asked: Asked, against: str, route: str, calls: "list[list[int]] | None", folder: Path, names: Path | None) -> "Other":
    """What the other program computed: as for diff, or the tokens or the text that it wrote greedily after the prompt.

    DumpError if a file is neither.
    """
    from ..faults.diagnosis.greedy import of_tokens, read_written

    try:
        return other_side(asked, against, route, calls, folder, names)
    except DumpError:
        path = Path(against)
        prompt = [token for call in calls or () for token in call]
        chosen = read_written(asked.model, path, prompt) if prompt and names is None and path.is_file() else None
        if not chosen:
            raise
        return of_tokens(asked.model, prompt, chosen, path, asked.model.route(route).canonical)


def telling_apart(model: "Model", other: "Other", found: "Diagnosis") -> list[int] | None:
    """The tokens that tell the best answer from those that leave as little; None if there are none such, or no tokens do."""
    from ..faults.diagnosis.suggesting import telling_tokens
    from ..report.progress import watching

    if not found.answers or not found.answers[0].same_as:
        return None
    with watching(err, "trying") as seen:
        return telling_tokens(model, other, found.answers[0], seen)
