"""`refmodel golden record`, `check` and `show`: reference numbers that keep their meaning."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import GoldenError
from ..machine.files import check_target
from ..machine.partial import temporary_folder
from ..machine.threads import use
from ..report.console import err, out
from .dumps import Map
from .engine import LIVE, OURS, Engine, engine_of, run_of
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
    file_of,
    model_of,
    numerics_of,
    token_ids,
    whole_numbers,
)
from .pages import Html, Md, Png, Reports, reports_of

if TYPE_CHECKING:
    from ..compare.golden import Golden
    from ..compare.golden_check import Checked
    from ..compare.other_side import Other
    from ..model.model import Model

ALL_TOKENS, LAST = "all", "last"

app = typer.Typer(help="Keep reference numbers of a model, with all that gives them their meaning, and hold engines against them.")

GoldenPath = Annotated[Path, typer.Argument(metavar="GOLDEN", help="A golden: a .safetensors file that `golden record` wrote.")]
Against = Annotated[
    str,
    typer.Option(
        help=f"Who computes: {OURS}, {LIVE} (a llama.cpp that you have), or a trace or dump of any program. Default: {OURS}, or "
        f"{LIVE} with --llama-lib."
    ),
]
GoldenNumerics = Annotated[
    str,
    typer.Option("--numerics", help=f"How {OURS} computes; see `refmodel run --help`. Default: oracle, or as the golden's engine."),
]
ProfileText = Annotated[
    str, typer.Option("--profile", help=f"How {LIVE} runs: exact, default, or options such as fa=on,threads=2.")
]


@app.command()
def record(
    model: ModelPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The golden to write: a name that ends in .safetensors.")],
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: GoldenNumerics = "",
    against: Against = "",
    profile: ProfileText = "",
    llama_lib: LlamaLib = None,
    llama_python: LlamaPython = "",
    names: Map = None,
    decode: Decode = 0,
    chunks: Chunks = "",
    positions: Annotated[
        str, typer.Option(help=f"The tokens whose logits are kept: {ALL_TOKENS}, {LAST}, or places such as 0,3,4.", metavar="WHICH")
    ] = ALL_TOKENS,
    keep: Annotated[str, typer.Option("--filter", help="Also keep taps whose names match this regular expression.")] = "",
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Record a golden: logits, and taps if you like, of an engine; how far right engines are from them is measured."""
    use(threads)
    from ..compare.golden import Golden, write_golden
    from ..compare.golden_check import made
    from ..numerics import ORACLE
    from ..report import golden as show
    from ..report.progress import watching

    engine = engine_of(against, numerics, llama_lib, llama_python, profile, names)
    loaded = model_of(model)
    check_target(output, loaded.file.parts)
    if output.suffix != ".safetensors":
        raise GoldenError(f"{output}: expected a name ending in .safetensors; call it {output.stem}.safetensors")
    calls = calls_of(token_ids(loaded, prompt, tokens, special), decode, chunks) if engine.here or prompt or tokens else None
    kept = f"^result_output$|{keep}" if keep else "^result_output$"
    with temporary_folder() as folder:
        other = run_of(engine, loaded, route or ("" if engine.here else None), calls, ORACLE, kept, folder)
        with watching(err, "measuring the noise of right engines:") as seen:
            said, arrays = made(loaded, other, keep, positions_of(positions), engine.here, seen)
        write_golden(output, said, arrays)
    written = Golden(output)
    if as_json:
        out.json(show.golden_json(written))
    else:
        out.print(show.shown(written))
        out.print(f"{output}: {output.stat().st_size:,} bytes", markup=False)


def positions_of(words: str) -> list[int] | None:
    """The tokens that --positions means; None for all. TokenError for other words."""
    if words in (ALL_TOKENS, LAST):
        return [-1] if words == LAST else None
    return whole_numbers(words, "--positions")


@app.command()
def check(
    golden: GoldenPath,
    model: Annotated[str, typer.Option("--model", help="The model that it was recorded of.", metavar="MODEL")],
    numerics: GoldenNumerics = "",
    against: Against = "",
    profile: ProfileText = "",
    llama_lib: LlamaLib = None,
    llama_python: LlamaPython = "",
    names: Map = None,
    rounds: Annotated[
        str,
        typer.Option(
            help="What the engine rounds, where a dump does not say: reference, f16, fast, llamacpp or bf16.", metavar="WHAT"
        ),
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if one bit differs.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Show what a new recording would change, ask, and write it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --update: do not ask.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
    png: Png = None,
) -> None:
    """Let an engine compute what a golden has, and compare. A golden of something else is refused, with the reason."""
    use(threads)
    from ..compare.golden import Golden
    from ..compare.golden_check import check_same, checked

    reports = reports_of(html, md, png, as_json, [golden, Path(model), Path(against)])
    if update and reports:
        raise GoldenError("--update writes a new golden; leave out --html, --md and --png")
    engine = engine_of(against, numerics, llama_lib, llama_python, profile, names)
    known = Golden(file_of(str(golden)))
    loaded = model_of(model)
    check_rounds(rounds)
    with temporary_folder() as folder:
        other = again(engine, known, loaded, folder)
        if update:
            check_same(known, loaded, other)
            raise typer.Exit(renewed(engine, known, loaded, other, yes, as_json))
        result = checked(known, loaded, other, engine.here, rounds)
    raise typer.Exit(told(result, strict, as_json, reports))


def told(result: "Checked", strict: bool, as_json: bool, reports: Reports) -> int:
    """Print how an engine does, and give the reports. Returns the exit status: 1 if it is out."""
    from ..report import golden as show
    from ..report.golden_page import golden_page

    if as_json:
        out.json(show.checked_json(result, strict))
    elif not reports.md:
        out.print(show.checked_table(result))
        out.print(show.checked_lines(result), markup=False, soft_wrap=True)
    reports.give(lambda: golden_page(result, strict))
    return 0 if result.within and (result.same_bits or not strict) else 1


def check_rounds(words: str) -> None:
    """GoldenError for a word of --rounds that is no engine's."""
    from ..compare.golden_tolerance import ROUND

    if words and words not in ROUND:
        raise GoldenError(f"--rounds {words[:60]}: expected one of {', '.join(ROUND)}; choose what the engine rounds")


def again(engine: Engine, golden: "Golden", model: "Model", folder: Path) -> "Other":
    """What an engine computes of a golden's tokens and route. GoldenError if the golden is of another file."""
    from ..compare.golden import refuse_other_file

    refuse_other_file(golden, model)
    stems = dict.fromkeys(name.partition("@")[0] for name in golden.arrays)
    keep = "^(" + "|".join(map(re.escape, stems)) + ")$"
    return run_of(engine, model, golden.said["route"], golden.calls, numerics_of(golden.said["engine"]["numerics"]), keep, folder)


def renewed(engine: Engine, golden: "Golden", model: "Model", other: "Other", yes: bool, as_json: bool) -> int:
    """Show what a new recording would change, ask, and write it. Returns the exit status: 1 if it was not written."""
    from ..compare.golden import write_golden
    from ..compare.golden_check import made
    from ..compare.golden_update import change
    from ..report import golden as show
    from ..report.progress import watching

    stems = dict.fromkeys(re.escape(name) for name in golden.arrays if not name.startswith("result_output"))
    with watching(err, "measuring the noise of right engines:") as seen:
        keep = "^(" + "|".join(stems) + ")$" if stems else ""
        said, arrays = made(model, other, keep, golden.positions, engine.here, seen)
    found = change(golden, said, arrays)
    if not as_json:
        out.print(show.change_lines(found), markup=False, soft_wrap=True)
    written = found.any and (yes or agreed(golden.path))
    if written:
        write_golden(golden.path, said, arrays)
    if as_json:
        out.json(show.change_json(found, written))
    elif written:
        out.print(f"written: {golden.path}", markup=False)
    return 0 if written or not found.any else 1


def agreed(path: Path) -> bool:
    """Ask whether a golden is to be replaced. GoldenError if there is no terminal to ask at."""
    if not sys.stdin.isatty():
        raise GoldenError(f"{path}: not replaced, because there is no terminal to ask at; add --yes to replace it")
    return typer.confirm(f"replace {path}?", err=True)


@app.command()
def show(golden: GoldenPath, as_json: AsJson = False) -> None:
    """Show what a golden is: model, tokens, engine, semantics, and the noise that its tolerance comes from."""
    from ..compare.golden import Golden
    from ..report import golden as show

    known = Golden(file_of(str(golden)))
    if as_json:
        out.json(show.golden_json(known))
    else:
        out.print(show.shown(known))
