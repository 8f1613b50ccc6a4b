"""`refmodel diff`: compare a forward pass, tensor by tensor."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RefmodelError
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .dumps import Map, nothing_compared, of_model
from .faulty import FaultName, healthy_side, refuse_with_faults, rows_with_faults
from .folder import is_checkpoint, with_folder
from .options import (
    AsJson,
    Chunks,
    Decode,
    LlamaLib,
    LlamaPython,
    ModelPath,
    Mtp,
    MtpFile,
    Prompt,
    RouteText,
    Special,
    Threads,
    TokenText,
    calls_of,
    file_of,
    llama_of,
    model_of,
    numerics_of,
    profile_of,
    token_ids,
)

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..forward.numerics import Numerics
    from ..llamacpp.library import Given
    from ..llamacpp.profile import Profile
    from ..model.model import Model
    from ..model.route import Route

LIVE = "llamacpp"

Against = Annotated[
    str,
    typer.Option(
        help=f"{LIVE}, a trace or dump of any program (a file or a folder), another GGUF of the same model and route, or the "
        "Hugging Face folder that it was made of."
    ),
]
ProfileText = Annotated[
    str,
    typer.Option(
        "--profile",
        help="How llama.cpp runs: exact (fa=off,kv=f32), default (its own settings), or options such as fa=on,threads=2. "
        "Default: its own settings, or what --numerics names; exact for floats.",
    ),
]
DiffNumerics = Annotated[
    str,
    typer.Option(
        "--numerics",
        help="How to compute: fast, reference (float32), numpy, oracle (float64), llamacpp[:fa=off,...]. "
        "Default: as the other side computes.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if one bit differs, whatever explains it.")]
Anchor = Annotated[bool, typer.Option("--anchor", help="Start every block from the other side's own input.")]
AnchorNodes = Annotated[bool, typer.Option("--anchor-nodes", help="Start every operation from the other side's own input.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show how much of the distance to the float64 result each kind of rounding causes.")
]
Full = Annotated[str, typer.Option(help="With --explain: the same model in a higher precision.")]
Dequantized = Annotated[bool, typer.Option("--dequantized", help="Let llama.cpp run the file's weights as F32.")]
Every = Annotated[bool, typer.Option("--all", help="Show every tensor, not one per block.")]
Plot = Annotated[Path | None, typer.Option(help="With --against another GGUF: write a picture of the errors (PNG).")]


@dataclass(frozen=True)
class Asked:
    """What is to be compared, as values.

    numerics   ours; None for the other side's own arithmetic
    profile    how a live llama.cpp runs; None if nothing was said of it
    anchor     "", "block" or "node": where our pass starts from the other side's numbers
    strict     one other bit is a failure
    faults     the words of --fault
    """

    model: "Model"
    numerics: "Numerics | None"
    profile: "Profile | None"
    lib: "Given"
    anchor: str
    explain: bool
    dequantized: bool
    mtp: bool
    strict: bool
    faults: str


def diff(
    model: ModelPath,
    against: Against = LIVE,
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: DiffNumerics = "",
    profile: ProfileText = "",
    llama_lib: LlamaLib = None,
    llama_python: LlamaPython = "",
    decode: Decode = 0,
    chunks: Chunks = "",
    names: Map = None,
    anchor: Anchor = False,
    anchor_nodes: AnchorNodes = False,
    explain: Explain = False,
    full: Full = "",
    dequantized: Dequantized = False,
    strict: Strict = False,
    every: Every = False,
    plot: Plot = None,
    fault: FaultName = "",
    mtp: Mtp = False,
    mtp_file: MtpFile = None,
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare with llama.cpp, with a recorded trace, or with another file of the same model, tensor by tensor."""
    use(threads)
    if is_checkpoint(against):
        others = any((route, numerics, profile, llama_lib, llama_python, decode, anchor, anchor_nodes, explain, full))
        others = others or any((dequantized, strict, plot, mtp, mtp_file, chunks, names))
        raise typer.Exit(with_folder(file_of(model), Path(against), others, prompt, tokens, special, as_json))
    loaded, mtp = model_of(model, mtp_file), mtp or mtp_file is not None
    policy, how = numerics_of(numerics) if numerics else None, profile_of(profile) if profile else None
    anchored = "node" if anchor_nodes else "block" if anchor else ""
    asked = Asked(loaded, policy, how, llama_of(llama_lib, llama_python), anchored, explain, dequantized, mtp, strict, fault)
    check_words(asked, against, full, plot, bool(decode or chunks or names))
    if of_model(against):
        two_files(loaded, model_of(against), route, token_ids(loaded, prompt, tokens, special), plot, as_json)
        return
    asks = prompt or tokens or against == LIVE
    calls = calls_of(token_ids(loaded, prompt, tokens, special), decode, chunks) if asks else None
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        other = other_side(asked, against, route, calls, Path(folder), names)
        chosen = loaded.route(other.route)
        if explain:
            raise typer.Exit(budget(asked, chosen, other, full, Path(folder), every, as_json))
        raise typer.Exit(rows(asked, against, chosen, other, every, as_json))


def check_words(asked: Asked, against: str, full: str, plot: Path | None, calls: bool) -> None:
    """Check the options against each other before anything is computed. RefmodelError for two that do not go together."""
    of_live = asked.profile or asked.lib or asked.dequantized
    if asked.faults:
        refuse_with_faults(bool(of_live or of_model(against) or asked.mtp or asked.explain or asked.strict or full or plot))
    if of_model(against):
        if of_live or asked.mtp or asked.numerics or asked.anchor or asked.explain or asked.strict or full or calls:
            raise RefmodelError("--against another GGUF takes --route, -p, --tokens, --plot and --json only; leave out the rest")
        return
    if plot:
        raise RefmodelError("--plot is for --against another GGUF; leave it out")
    if asked.dequantized and (asked.explain or (asked.numerics and asked.numerics.emulates)):
        raise RefmodelError(
            "--dequantized: the quantized weights are multiplied here as llama.cpp multiplies them without it; leave it out, "
            "or compare under --numerics reference"
        )
    if full and not asked.explain:
        raise RefmodelError("--full is for --explain; add that, or leave it out")
    if against != LIVE and of_live:
        raise RefmodelError(
            "--profile, --dequantized, --llama-lib and --llama-python are for a live llama.cpp; a trace stays as recorded; "
            "leave them out"
        )
    if asked.explain and asked.mtp:
        raise RefmodelError("--explain is about the trunk; leave out --mtp")
    if asked.mtp:
        _ = asked.model.prediction  # what it lacks is said before llama.cpp runs


def profile_for(asked: Asked) -> "Profile":
    """How a live llama.cpp runs: as --profile asks; else as the numerics emulates it; else exactly, for floats; else by default."""
    from ..llamacpp.profile import DEFAULT, PROFILES

    if asked.profile:
        return asked.profile
    if asked.numerics and asked.numerics.emulates:
        emulated: Profile = asked.numerics.emulates.profile
        return emulated
    return PROFILES["exact"] if asked.numerics or asked.dequantized else DEFAULT


def other_side(
    asked: Asked, against: str, route: str, calls: "list[list[int]] | None", folder: Path, names: Path | None = None
) -> "Other":
    """The other side: what llama.cpp computes now, what a trace recorded, or what another program dumped.

    calls   token ids, one list a call; None: those of the trace
    folder  for a copy that a live run needs
    names   the file of --map

    OracleError without a llama.cpp; TraceError or DumpError for a record that cannot be read, or does not belong to this model.
    """
    from ..compare.dumped import read_other
    from ..compare.probes import known
    from ..llamacpp.library import locate
    from ..report.progress import watching
    from ..surgery.live import live

    chosen = asked.model.route(route)
    if against == LIVE and asked.faults:
        return healthy_side(asked.model, chosen, calls or [], asked.numerics, folder)
    if against == LIVE:
        assert calls is not None
        with watching(err, "trying this llama.cpp, once:") as seen:
            known(locate(asked.lib), seen)
        with err.status(f"llama.cpp computes {sum(map(len, calls))} tokens"):
            return live(asked.model, chosen, calls, profile_for(asked), asked.lib, asked.dequantized, folder, asked.mtp)
    path = file_of(against)
    with err.status(f"reading {path.name}"):
        return read_other(asked.model, path, calls, chosen if route else None, names, asked.mtp)


def rows(asked: Asked, against: str, route: "Route", other: "Other", every: bool, as_json: bool) -> int:
    """Compare every tensor of our pass with the other side's, and print the table. Returns the exit status.

    TraceError if no tensor has a name of this model's pass.
    """
    from ..compare.diff import LACKING
    from ..compare.other_side import compare, numerics_against
    from ..compare.rounding import verdict_of
    from ..compare.verdict import equal
    from ..numerics import REFERENCE
    from ..report import diff as show
    from ..report.progress import watching

    if asked.faults:
        return rows_with_faults(asked.model, asked.faults, route, other, asked.numerics, asked.anchor, every, as_json)
    policy = numerics_against(REFERENCE if asked.dequantized and not asked.numerics else asked.numerics, other)
    prepare(asked.model, policy, other.calls)
    with watching(err, "comparing") as seen:
        result = compare(asked.model, route, other, policy, asked.anchor, seen)
        if not any(row.name in other.taps and row.problem != LACKING for row in result.rows):
            nothing_compared(against, other, as_json)
        verdict = equal(result.rows, other) if policy is other.arithmetic else None
        verdict = verdict or verdict_of(asked.model, route, other, seen)
    if as_json:
        out.json(show.diff_json(result, verdict, other, policy.name, asked.model))
    else:
        out.print(show.diff_table(result, verdict, every))
        out.print(show.diff_headline(result, verdict, other, policy.name, asked.model), markup=False, soft_wrap=True)
    differs = any(row.differ for row in result.rows)
    return 1 if verdict.first or (asked.strict and differs) else 0


def budget(asked: Asked, route: "Route", other: "Other", full: str, folder: Path, every: bool, as_json: bool) -> int:
    """Print the error budget of every block. Returns the exit status."""
    from ..compare.error_budget import explain
    from ..report import explanation as show
    from ..report.progress import watching

    with watching(err, "computing") as seen:
        explanation = explain(asked.model, route, other, folder, model_of(full) if full else None, asked.anchor, seen)
    if as_json:
        out.json(show.explanation_json(explanation, other))
    else:
        out.print(show.explanation_table(explanation, every))
        out.print(show.explanation_headline(explanation, other), markup=False, soft_wrap=True)
    return 0 if explanation.explained else 1


def two_files(model: "Model", full: "Model", route: str, ids: list[int], plot: Path | None, as_json: bool) -> None:
    """Compare two files of one model under one route: what quantization adds, and whether repeated blocks amplify it.

    RefmodelError for a plot whose name does not end in .png.
    """
    from ..compare.quantized import trial
    from ..report import quantized as show
    from ..report.plots import plot as draw
    from ..report.progress import watching

    if plot and plot.suffix != ".png":
        raise RefmodelError(f"--plot {plot}: expected a name ending in .png; call it {plot.stem}.png")
    with watching(err, "comparing") as seen:
        done = trial(model, full, route, ids, seen)
    if plot:
        draw(done, plot, f"{model.path.name} against {full.path.name}, {done.route.canonical}")
    if as_json:
        out.json(show.trial_json(done))
    else:
        show.trial(out, done)
