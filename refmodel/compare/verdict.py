"""What is wrong with the other side, if anything: each operation is started from the other side's own numbers and judged alone.

A difference that arose earlier cannot grow or hide, so what is left at an operation is its own rounding or its own fault. How much
rounding explains is measured on the same input: by how much this operation differs between two healthy runs of ours, one in the
other side's arithmetic and one that rounds activations alike and does everything else in float64.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..arrays import F
from ..forward.numerics import Numerics
from ..forward.trace import Recorder, Spool, Trace
from ..llamacpp.builds import JUDGE
from ..llamacpp.profile import DEFAULT
from ..machine.partial import temporary_folder
from ..model.model import Model, load
from ..model.route import Route
from ..model.session import run_calls
from ..numerics import FAST, ORACLE, REFERENCE, ladder
from .allowances import FLOOR, OF_FLOATS
from .diff import Anchored, diff, has_draft, shows_scores
from .other_side import Other
from .rows import Row

EQUAL, EXPLAINED, WRONG = "equal", "explained", "wrong"


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the other side.

    word        EQUAL: the same bits; EXPLAINED: each operation is right and rounding makes the difference; WRONG
    arithmetic  the numerics that computes as the other side does
    rows        every operation from the other side's inputs, by tap; `allowed` is what rounding explains
    first       the first wrong one, None if there is none
    rounds      what the other side rounds, where that was found out; empty where its arithmetic is known
    """

    word: str
    arithmetic: Numerics
    rows: Mapping[str, Row]
    first: Row | None
    rounds: str = ""

    def is_right(self, tap: str) -> bool:
        """Whether nothing is wrong with a tap's operation by itself."""
        return tap not in self.rows or self.rows[tap].within

    @property
    def rounded(self) -> Sequence[str]:
        """The operations that round otherwise than ours, the one that differs most first, without their positions."""
        found: dict[str, float] = {}
        for row in self.rows.values():
            if row.differ and row.within:
                found[stem(row.name)] = max(found.get(stem(row.name), 0.0), row.nmse)
        return sorted(found, key=lambda name: -found[name])


def stem(tap: str) -> str:
    """The operation of a tap, at whatever position and call: Kcur-3#1@2 -> Kcur#1."""
    return re.sub(r"-\d+|@\d+", "", tap)


def judge(
    model: Model,
    route: Route,
    other: Other,
    seen: Callable[[str], None],
    arithmetic: Numerics | None = None,
    noise: Mapping[str, float] | None = None,
) -> Verdict:
    """Compare every operation of a recorded run with ours.

    seen        called with what is being computed
    arithmetic  computes as the other side does; None for what `other` is known to compute with
    noise       what `measured` found for these; None to measure it if necessary

    An operation whose bits are known is wrong if one bit differs. Else it is wrong if it differs by more than rounding explains.
    """
    policy = arithmetic or other.arithmetic
    if other.ran:
        model = load(other.ran)
        route = model.route()
    with temporary_folder() as folder:
        run = diff(model, other.calls, other.taps, route, policy, "node", seen)
        rows = other.judged(run.rows)
        if noise is None and any(row.differ and not other.is_exact(name) for name, row in rows.items()):
            noise = measured(model, route, other, folder, seen)
    return verdict_on(rows, other, policy, noise)


def verdict_on(judged: Mapping[str, Row], other: Other, policy: Numerics, noise: Mapping[str, float] | None) -> Verdict:
    """The verdict on what `other.judged` gives of a run under `policy`.

    noise  as in `judge`; None if no operation of unknown bits differs
    """
    explains = {name: np.inf if noise is None else explained(name, noise) for name in judged}
    rows = {name: replace(row, allowed=0.0 if other.is_exact(name) else explains[name]) for name, row in judged.items()}
    first = next((row for row in rows.values() if not row.within), None)
    differs = any(row.differ for row in rows.values())
    return Verdict(WRONG if first else EXPLAINED if differs else EQUAL, policy, rows, first)


def equal(rows: Sequence[Row], other: Other) -> Verdict | None:
    """The verdict EQUAL on a run in the other side's arithmetic that has all its bits; None if it has not."""
    if any(row.differ or row.problem for row in rows):
        return None
    return Verdict(EQUAL, other.arithmetic, {row.name: row for row in rows}, None)


def explained(tap: str, noise: Mapping[str, float]) -> float:
    """The largest NMSE that rounding explains at a tap."""
    return OF_FLOATS * noise.get(stem(tap), 0.0) + FLOOR


def measured(model: Model, route: Route, other: Other, folder: Path, seen: Callable[[str], None]) -> dict[str, float]:
    """The rounding of each operation on this input: its stem -> NMSE between two runs of ours.

    Of all positions and calls the largest counts.
    """
    path = folder / "rounded.safetensors"
    with Spool(path, {}) as spool:
        recorder = Recorder(spool, "", seen)
        anchored = Anchored(other.taps, "node")
        both = lambda name, x: anchored(name, recorder(name, x))
        session = model.session(route, other.arithmetic, both, has_draft(other.taps), shows_scores(other.taps))
        for _ in run_calls(session, other.calls, recorder, anchored):
            pass
    found: dict[str, float] = {}
    ours = Trace(path)
    for row in diff(model, other.calls, ours, route, twin(other.arithmetic), "node", seen, start=other.taps).rows:
        if not row.problem:
            found[stem(row.name)] = max(found.get(stem(row.name), 0.0), row.nmse)
    return found


def twin(num: Numerics) -> Numerics:
    """The numerics that rounds activations and the cache as `num` does, with everything else in float64.

    For ORACLE, which is float64 itself, it is REFERENCE.
    """
    if num.emulates:
        steps = ladder(num.emulates.profile, num.emulates.build)
        return replace(steps["activations"], geglu=partial(in_float32, num.geglu), store=steps["attention"].store)
    if num is FAST:
        return ladder(DEFAULT, JUDGE)["activations"]
    return REFERENCE if num is ORACLE else ORACLE


def in_float32(function: Callable[..., F], *arrays: F) -> F:
    """Call a function of float32 arrays with arrays of another dtype; the result has the dtype of the first."""
    return function(*(x.astype(np.float32) for x in arrays)).astype(arrays[0].dtype)
