"""Make goldens, and hold engines against them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import F
from ..errors import GoldenError, TraceError
from ..model.model import Model
from .diff import logit_rows
from .golden import LOGITS, Golden, c_library, call_of, engine_of, recorded_arrays, refuse_other_file, rows_of, statement
from .golden_noise import Run, engine_named, explains, measured
from .golden_tolerance import OWN, allowed, finest_first
from .other_side import Other, Remark
from .rows import LogitRow, Row, compare
from .semantics import misfits, semantics
from .views import of_tokens


def made(
    model: Model,
    other: Other,
    keep: str,
    positions: Sequence[int] | None,
    here: bool,
    seen: Callable[[str], None],
) -> tuple[dict[str, Any], Mapping[str, F]]:
    """What a golden of a run says, and its arrays.

    keep       a regular expression: the taps that are kept besides the logits; empty for none
    positions  tokens of the whole run whose logits are kept; None for all
    here       the run was computed on this machine, now
    seen       called with what is computed

    GoldenError if the run has no logits, or its numbers are not what this file computes under any known rounding; TraceError for an
    expression that cannot be read.
    """
    rows, names = rows_of(other, positions), chosen_taps(other, keep)
    arrays = recorded_arrays(other, names, rows if positions is not None else None)
    run = Run(model, model.route(other.route), other.calls, list(arrays), rows, other.apart)
    noise, exact = measured(run, other.arithmetic, seen)
    engine, rounds = engine_of(other, here), engine_named(other.arithmetic)
    if engine["kind"] != "refmodel":
        found = explains(noise, exact, arrays)
        rounds = found if engine["kind"] == "dump" else rounds
        if not found:  # a golden with a fault would protect the fault
            raise GoldenError(
                f"{other.who}: its logits are not what {model.path.name} computes, whatever it rounds; not recorded: "
                "`refmodel diff` names the first wrong operation"
            )
    return statement(model, run.route, other, {**engine, "rounds": rounds}, rows) | {"noise": noise}, arrays


def chosen_taps(other: Other, keep: str) -> list[str]:
    """The logits of every call, and the taps that the expression finds. GoldenError if there are no logits."""
    try:
        match = re.compile(keep).search if keep else lambda name: None
    except (re.error, OverflowError, RecursionError) as error:
        raise TraceError(f"--filter {keep[:60]}: not a regular expression ({error}); correct it, or leave it out") from None
    names = [tap for tap in other.taps if is_logits(tap) or match(tap)]
    if not any(map(is_logits, names)):
        raise GoldenError(f"{other.who}: has no logits; a golden needs them: record {LOGITS} too")
    return names


def is_logits(tap: str) -> bool:
    """Whether a tap is that of the logits, in whatever call."""
    return tap.partition("@")[0] == LOGITS


@dataclass(frozen=True)
class Checked:
    """How an engine does against a golden.

    golden   what it was held against
    engine   who it is, as `engine_of` says
    rounds   what it was taken to round, one of ROUND
    exact    every bit is promised: one other bit is out
    rows     a row for each recorded tensor that the engine has; `allowed` is what the recorded noise explains
    logits   a row for each token
    lacking  the recorded tensors that the engine does not have
    would    what would explain it, where `rounds` does not: one of ROUND; empty if nothing does
    remarks  what is odd about the dump that was checked
    """

    golden: Golden
    engine: Mapping[str, Any]
    rounds: str
    exact: bool
    rows: Sequence[Row]
    logits: Sequence[LogitRow]
    lacking: Sequence[str]
    would: str
    remarks: Sequence[Remark] = ()

    @property
    def within(self) -> bool:
        """Whether every tensor is within what the noise explains."""
        return all(row.within for row in self.rows)

    @property
    def same_bits(self) -> bool:
        """Whether not one bit differs."""
        return not any(row.differ or row.problem for row in self.rows)


def checked(golden: Golden, model: Model, other: Other, here: bool, rounds: str = "") -> Checked:
    """Hold a run against a golden.

    here    the run was computed on this machine, now
    rounds  what the engine rounds, one of ROUND; empty for what is known of it

    GoldenError if the golden is of another file, of other tokens or another route, if what it computes is not what this engine
    computes, or if the run has none of its tensors.
    """
    engine = engine_of(other, here)
    check_same(golden, model, other)
    if wrong := misfits(golden.said["semantics"], semantics(model, other)):
        raise GoldenError(
            f"{golden.path}: what it was recorded of is not what is checked: {'; '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}; record it anew, or --update it"
        )
    exact, alike = promised(golden, engine), same_arithmetic(golden, engine)
    how = rounds or (golden.said["engine"]["rounds"] if engine["kind"] == "dump" and engine["numerics"] == "reference" else "")
    how = how or engine_named(other.arithmetic)
    alike = alike and not rounds
    pairs = {tap: pair_of(golden, other, tap) for tap in golden.arrays if tap in other.taps}
    if not pairs:
        raise GoldenError(
            f"{other.who}: has none of the tensors of {golden.path}: {', '.join(list(golden.arrays)[:3])}; nothing was checked"
        )
    measured = {tap: compare(tap, a, b) for tap, (a, b) in pairs.items()}
    rows = [replace(row, allowed=0.0 if exact else allowed(golden, tap, how, alike)) for tap, row in measured.items()]
    would = "" if exact or all(row.within for row in rows) else explained_by(golden, rows, how)
    logits = [row for tap, pair in pairs.items() if is_logits(tap) for row in by_token(golden, other, tap, *pair)]
    lacking = [tap for tap in golden.arrays if tap not in pairs]
    return Checked(golden, engine, OWN if alike else how, exact, rows, logits, lacking, would, other.remarks)


def check_same(golden: Golden, model: Model, other: Other) -> None:
    """GoldenError if a run is of another file, other tokens or another route than the golden."""
    refuse_other_file(golden, model)
    if [list(call) for call in other.calls] != golden.calls:
        raise GoldenError(f"{other.who}: ran other tokens than {golden.path}: {golden.calls}; run those")
    if other.route != golden.said["route"]:
        raise GoldenError(f"{other.who}: ran the route {other.route}, {golden.path} has {golden.said['route']}; run that")


def same_arithmetic(golden: Golden, engine: Mapping[str, Any]) -> bool:
    """Whether an engine rounds as the golden's did, as far as is known."""
    recorded = golden.said["engine"]
    return bool(recorded["numerics"] == engine["numerics"] and recorded["kind"] != "dump" and engine["kind"] != "dump")


def promised(golden: Golden, engine: Mapping[str, Any]) -> bool:
    """Whether every bit of a golden is promised of an engine: both are llama.cpp's arithmetic with one C library, and known."""
    recorded = golden.said["engine"]
    emulated = str(recorded["numerics"]).startswith("llamacpp") and same_arithmetic(golden, engine)
    known = not recorded["unknown"] and not engine["unknown"]
    return bool(emulated and known and recorded["c_library"] and recorded["c_library"] == engine["c_library"] == c_library())


def pair_of(golden: Golden, other: Other, tap: str) -> tuple[F, F]:
    """What golden and engine both have of a tap, in one shape where that is possible: (the golden's, the engine's)."""
    ours, theirs, view = golden.arrays[tap], np.asarray(other.taps[tap]), other.views.get(tap)
    tokens = golden.rows(tap)
    if tokens is None and view is None:
        return ours, theirs.reshape(ours.shape) if theirs.size == ours.size else theirs
    length = len(other.calls[call_of(tap)])
    if tokens is not None:  # the tokens that the golden does not have are NaN, and are left out at the end
        whole = np.full((length, *ours.shape[1:]), np.nan)
        whole[tokens] = ours
        ours = whole
    a, b = (view or of_tokens(np.arange(length))).pair(ours, theirs)
    a, b = view.settled(a, b.reshape(a.shape)) if view and a.size == b.size else (a, b)
    there = ~np.isnan(a.reshape(len(a), -1)).any(axis=1)
    return (a[there], b.reshape(a.shape)[there]) if a.size == b.size else (a, b)


def by_token(golden: Golden, other: Other, tap: str, a: F, b: F) -> list[LogitRow]:
    """The rows of logits, where whole ones are compared: the engine's against the golden's."""
    view, tokens = other.views.get(tap), golden.rows(tap)
    if a.shape != b.shape or a.ndim != 2 or (view and not view.rows) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return []
    there = list(range(len(other.calls[call_of(tap)]))) if view is None else [int(t) for t in view.rows]
    there = [t for t in there if tokens is None or t in tokens]
    return [replace(row, token=there[row.token]) for row in logit_rows(b, a, None)]


def explained_by(golden: Golden, rows: Sequence[Row], how: str) -> str:
    """The finest engine whose noise would explain all rows; empty if none does, or only a finer one than `how`."""
    for name in finest_first(golden.said["noise"]):
        if name != how and all(not row.problem and row.nmse <= allowed(golden, row.name, name, False) for row in rows):
            return name
    return ""
