"""`refmodel diff`: compare a forward pass, tensor by tensor."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import RefmodelError
from ..machine.partial import temporary_folder
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .diff_options import (
    LIVE,
    Against,
    Anchor,
    AnchorNodes,
    Dequantized,
    DiffNumerics,
    Every,
    Explain,
    Full,
    ProfileText,
    Strict,
)
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
from .pages import Html, Md, Png, Reports, reports_of

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..forward.numerics import Numerics
    from ..llamacpp.library import Given
    from ..llamacpp.profile import Profile
    from ..model.model import Model
    from ..report.diff_page import Compared


@dataclass(frozen=True)
class Shape:
    """How to answer: every tensor or one a block, JSON or a table, and which reports."""

    every: bool
    as_json: bool
    reports: Reports


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
    anchor: str = ""
    explain: bool = False
    dequantized: bool = False
    mtp: bool = False
    strict: bool = False
    faults: str = ""


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
    fault: FaultName = "",
    mtp: Mtp = False,
    mtp_file: MtpFile = None,
    special: Special = False,
    threads: Threads = None,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
    png: Png = None,
) -> None:
    """Compare with llama.cpp, with a recorded trace, or with another file of the same model, tensor by tensor."""
    use(threads)
    reports = reports_of(html, md, png, as_json, [Path(model), Path(against)])
    if is_checkpoint(against):
        others = any((route, numerics, profile, llama_lib, llama_python, decode, anchor, anchor_nodes, explain, full))
        others = others or any((dequantized, strict, mtp, mtp_file, chunks, names, reports))
        raise typer.Exit(with_folder(file_of(model), Path(against), others, prompt, tokens, special, as_json))
    loaded, mtp = model_of(model, mtp_file), mtp or mtp_file is not None
    policy, how = numerics_of(numerics) if numerics else None, profile_of(profile) if profile else None
    anchored, shape = "node" if anchor_nodes else "block" if anchor else "", Shape(every, as_json, reports)
    asked = Asked(loaded, policy, how, llama_of(llama_lib, llama_python), anchored, explain, dequantized, mtp, strict, fault)
    check_words(asked, against, full, bool(decode or chunks or names), bool(reports))
    if of_model(against):
        return two_files(loaded, model_of(against), route, token_ids(loaded, prompt, tokens, special), shape)
    ids = token_ids(loaded, prompt, tokens, special) if prompt or tokens or against == LIVE else None
    calls = None if ids is None else calls_of(ids, decode, chunks)
    with temporary_folder() as folder:
        other = other_side(asked, against, route, calls, folder, names)
        answer = budget(asked, against, other, full, folder, shape) if explain else rows(asked, against, other, shape)
        raise typer.Exit(answer)


def check_words(asked: Asked, against: str, full: str, calls: bool, reports: bool) -> None:
    """Check the options against each other before anything is computed. RefmodelError for two that do not go together."""
    of_live = asked.profile or asked.lib or asked.dequantized
    if asked.faults:
        refuse_with_faults(bool(of_live or of_model(against) or asked.mtp or asked.explain or asked.strict or full or reports))
    if of_model(against):
        if of_live or asked.mtp or asked.numerics or asked.anchor or asked.explain or asked.strict or full or calls:
            raise RefmodelError(
                "--against another GGUF takes --route, -p, --tokens, --json, --html, --md and --png only; leave out the rest"
            )
        return
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


def compared(asked: Asked, against: str, other: "Other", shape: Shape) -> "Compared":
    """Compare every tensor of our pass with the other side's. TraceError if no tensor has a name of this model's pass."""
    from ..compare.diff import LACKING
    from ..compare.other_side import compare, numerics_against
    from ..compare.rounding import verdict_of
    from ..compare.verdict import equal
    from ..numerics import REFERENCE
    from ..report.diff_page import Compared
    from ..report.progress import watching

    route = asked.model.route(other.route)
    policy = numerics_against(REFERENCE if asked.dequantized and not asked.numerics else asked.numerics, other)
    prepare(asked.model, policy, other.calls)
    with watching(err, "comparing") as seen:
        result = compare(asked.model, route, other, policy, asked.anchor, seen)
        if not any(row.name in other.taps and row.problem != LACKING for row in result.rows):
            nothing_compared(against, other, shape.as_json)
        verdict = equal(result.rows, other) if policy is other.arithmetic else None
        verdict = verdict or verdict_of(asked.model, route, other, seen)
    return Compared(asked.model, route, result, verdict, other, policy.name)


def rows(asked: Asked, against: str, other: "Other", shape: Shape) -> int:
    """Compare every tensor of our pass with the other side's, and print the table. Returns the exit status."""
    from ..report import diff as show
    from ..report.diff_page import diff_page

    if asked.faults:
        return rows_with_faults(asked.model, asked.faults, other, asked.numerics, asked.anchor, shape.every, shape.as_json)
    done = compared(asked, against, other, shape)
    result, verdict = done.result, done.verdict
    if shape.as_json:
        out.json(show.diff_json(result, verdict, other, done.numerics, asked.model))
    elif not shape.reports.md:
        out.print(show.diff_table(result, verdict, shape.every))
        out.print(show.diff_headline(result, verdict, other, done.numerics, asked.model), markup=False, soft_wrap=True)
    shape.reports.give(lambda: diff_page(done))
    differs = any(row.differ for row in result.rows)
    return 1 if verdict.first or (asked.strict and differs) else 0


def budget(asked: Asked, against: str, other: "Other", full: str, folder: Path, shape: Shape) -> int:
    """Print the error budget of every block. Returns the exit status. A report also has the comparison."""
    from ..compare.error_budget import explain
    from ..report import explanation as show
    from ..report.diff_page import diff_page
    from ..report.progress import watching

    route = asked.model.route(other.route)
    with watching(err, "computing") as seen:
        explanation = explain(asked.model, route, other, folder, model_of(full) if full else None, asked.anchor, seen)
    if shape.as_json:
        out.json(show.explanation_json(explanation, other))
    elif not shape.reports.md:
        out.print(show.explanation_table(explanation, shape.every))
        out.print(show.explanation_headline(explanation, other), markup=False, soft_wrap=True)
    shape.reports.give(lambda: diff_page(replace(compared(asked, against, other, shape), explanation=explanation)))
    return 0 if explanation.explained else 1


def two_files(model: "Model", full: "Model", route: str, ids: list[int], shape: Shape) -> None:
    """Compare two files of one model under one route: what quantization adds, and whether repeated blocks amplify it."""
    from ..compare.quantized import trial
    from ..report import quantized as show
    from ..report.progress import watching
    from ..report.quantized_page import trial_page

    with watching(err, "comparing") as seen:
        done = trial(model, full, route, ids, seen)
    if shape.as_json:
        out.json(show.trial_json(done))
    elif not shape.reports.md:
        show.trial(out, done)
    shape.reports.give(lambda: trial_page(done, model, full, ids))
