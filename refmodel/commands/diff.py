"""`refmodel diff`: compare a forward pass, tensor by tensor."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RefmodelError
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import (
    AsJson,
    Decode,
    LlamaLib,
    ModelPath,
    Mtp,
    NumericsName,
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
)

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..forward.numerics import Numerics
    from ..llamacpp.profile import Profile
    from ..model.model import Model
    from ..model.route import Route

LIVE = "llamacpp"

Against = Annotated[str, typer.Option(help=f"{LIVE}, a trace file, or another GGUF of the same model and route.")]
ProfileText = Annotated[
    str,
    typer.Option(
        "--profile",
        help="How llama.cpp runs: exact (fa=off,kv=f32), default (its own settings), or options such as fa=on,threads=2. "
        "Default: what --numerics llamacpp names, else exact.",
    ),
]
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

    numerics   ours; None for the other side's own arithmetic where --numerics says just llamacpp
    profile    how a live llama.cpp runs
    anchor     "", "block" or "node": where our pass starts from the other side's numbers
    """

    model: "Model"
    numerics: "Numerics"
    profile: "Profile"
    lib: Path | None
    anchor: str
    dequantized: bool
    mtp: bool


def diff(
    model: ModelPath,
    against: Against = LIVE,
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "reference",
    profile: ProfileText = "",
    llama_lib: LlamaLib = None,
    decode: Decode = 0,
    anchor: Anchor = False,
    anchor_nodes: AnchorNodes = False,
    explain: Explain = False,
    full: Full = "",
    dequantized: Dequantized = False,
    every: Every = False,
    plot: Plot = None,
    mtp: Mtp = False,
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare with llama.cpp, with a recorded trace, or with another file of the same model, tensor by tensor."""
    use(threads)
    loaded = model_of(model)
    if against.endswith(".gguf"):
        if numerics != "reference" or any((profile, llama_lib, decode, anchor, anchor_nodes, explain, full, dequantized, mtp)):
            raise RefmodelError(
                "--against another GGUF takes only --route, -p or --tokens, --plot and --json; leave out the others"
            )
        two_files(loaded, model_of(against), route, token_ids(loaded, prompt, tokens, special), plot, as_json)
        return
    policy = numerics_of(numerics)
    check_words(against, policy, profile, llama_lib, explain, full, dequantized, plot, mtp)
    anchored = "node" if anchor_nodes else "block" if anchor else ""
    asked = Asked(loaded, policy, profile_of(profile, policy, explain), llama_lib, anchored, dequantized, mtp)
    if mtp:
        _ = loaded.prediction  # what it lacks is said before llama.cpp runs
    ids = token_ids(loaded, prompt, tokens, special) if prompt or tokens or against == LIVE else None
    calls = None if ids is None else calls_of(ids, decode)
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        other = other_side(asked, against, route, calls, Path(folder))
        chosen = loaded.route(other.route)
        if explain:
            status = budget(asked, chosen, other, full, Path(folder), every, as_json)
        else:
            status = rows(asked, chosen, other, every, as_json)
    raise typer.Exit(status)


def check_words(
    against: str,
    policy: "Numerics",
    profile: str,
    lib: Path | None,
    explain: bool,
    full: str,
    dequantized: bool,
    plot: Path | None,
    mtp: bool,
) -> None:
    """RefmodelError for options that do not go together."""
    if plot:
        raise RefmodelError("--plot is for --against another GGUF; leave it out")
    if dequantized and (explain or policy.emulates):
        raise RefmodelError(
            "--dequantized: the quantized weights are multiplied here as llama.cpp multiplies them without it; leave it out, "
            "or compare under --numerics reference"
        )
    if full and not explain:
        raise RefmodelError("--full is for --explain; add that, or leave it out")
    if against != LIVE and (profile or dequantized or lib or mtp):
        raise RefmodelError("--profile, --dequantized, --mtp and --llama-lib are for a live llama.cpp; a trace stays as recorded")
    if explain and mtp:
        raise RefmodelError("--explain is about the trunk; leave out --mtp")


def profile_of(words: str, policy: "Numerics", explain: bool) -> "Profile":
    """How llama.cpp runs: as the words say; else as the numerics that emulate it, and with --explain as by itself."""
    from ..llamacpp.profile import DEFAULT, PROFILES, profile_of

    if words:
        return profile_of(words)
    if policy.emulates:
        emulated: Profile = policy.emulates.profile
        return emulated
    return DEFAULT if explain else PROFILES["exact"]


def other_side(asked: Asked, against: str, route: str, calls: "list[list[int]] | None", folder: Path) -> "Other":
    """What llama.cpp computes now, or what a trace recorded."""
    from ..compare.other_side import recorded
    from ..surgery.live import live

    chosen = asked.model.route(route)
    if against == LIVE:
        assert calls is not None
        with err.status(f"llama.cpp computes {sum(map(len, calls))} tokens"):
            return live(asked.model, chosen, calls, asked.profile, asked.lib, asked.dequantized, folder, asked.mtp)
    with err.status("reading the file for its sha256"):
        return recorded(asked.model, file_of(against), calls, chosen if route else None)


def rows(asked: Asked, route: "Route", other: "Other", every: bool, as_json: bool) -> int:
    """Every tensor of our pass against the other side's. Returns the exit status."""
    from ..compare.other_side import compare, numerics_against
    from ..report import diff as show
    from ..report.progress import watching

    prepare(asked.model, asked.numerics, other.calls)
    policy = numerics_against(asked.numerics, other)
    with watching(err, "comparing") as seen:
        result = compare(asked.model, route, other, policy, asked.anchor, seen)
    if as_json:
        print(json.dumps(show.diff_json(result, other, policy.name), indent=1))
    else:
        out.print(show.diff_table(result, every))
        out.print(show.diff_headline(result, other, policy.name), markup=False, soft_wrap=True)
    return 1 if result.first_wrong else 0


def budget(asked: Asked, route: "Route", other: "Other", full: str, folder: Path, every: bool, as_json: bool) -> int:
    """The error budget of every block. Returns the exit status."""
    from ..compare.error_budget import explain
    from ..report import explanation as show
    from ..report.progress import watching

    with watching(err, "computing") as seen:
        explanation = explain(asked.model, route, other, folder, model_of(full) if full else None, asked.anchor, seen)
    if as_json:
        print(json.dumps(show.explanation_json(explanation, other), indent=1))
    else:
        out.print(show.explanation_table(explanation, every))
        out.print(show.explanation_headline(explanation, other), markup=False, soft_wrap=True)
    return 0 if explanation.explained else 1


def two_files(model: "Model", full: "Model", route: str, ids: list[int], plot: Path | None, as_json: bool) -> None:
    """Two files of one model under one route: what quantization adds, and whether repeated blocks amplify it."""
    from ..compare.quantized import trial
    from ..report import quantized as show
    from ..report.plots import plot as draw
    from ..report.progress import watching

    if plot and plot.suffix != ".png":
        raise RefmodelError(f"--plot {plot}: expected a name ending in .png")
    with watching(err, "comparing") as seen:
        done = trial(model, full, route, ids, seen)
    if plot:
        draw(done, plot, f"{model.path.name} against {full.path.name}, {done.route.canonical}")
    if as_json:
        print(json.dumps(show.trial_json(done), indent=1))
    else:
        show.trial(out, done)
