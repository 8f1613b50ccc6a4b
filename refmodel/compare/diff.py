"""Compare a forward pass, as it runs, with a recorded one: a row for each tap, and a closer look at the logits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import F
from ..forward.taps import in_call
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from ..numerics import Numerics
from .rows import LogitRow, Row, compare, compare_logits, squeezed
from .tolerance import Tolerance


@dataclass(frozen=True)
class Diff:
    """All rows in the order in which our pass made them, missing ones last, and the logits' rows."""

    rows: list[Row]
    logits: list[LogitRow]
    tolerance: Tolerance

    @property
    def first_wrong(self) -> Row | None:
        return next((row for row in self.rows if not row.within), None)


class Anchored:
    """A tapper that lets a pass go on with their numbers instead of ours.

    With "block", each block starts from their output of the block before it, and in later calls also from their
    convolution and delta states and their cached keys and values: one wrong block makes one wrong block. With "node", every
    operation starts from their numbers: one wrong operation makes one wrong row. With "", nothing is replaced.

    call   number of this call
    fresh  its tokens
    """

    def __init__(self, theirs: Mapping[str, F], anchor: str) -> None:
        self.theirs, self.replacement = theirs, REPLACEMENTS[anchor]
        self.call, self.fresh = 0, 0

    def begin(self, call: int, fresh: int) -> None:
        self.call, self.fresh = call, fresh

    def __call__(self, name: str, x: F) -> F:
        replaces, key = self.replacement(name.partition("-")[0]), in_call(name, self.call)
        if replaces is None or key not in self.theirs:
            return x
        theirs = self.theirs[key]
        fits = squeezed(x.shape) == squeezed(theirs.shape) and bool(np.isfinite(theirs).all())
        return replaces(x, theirs.reshape(x.shape).astype(x.dtype), self.fresh) if fits else x


class Comparing:
    """A tapper that measures every tap against theirs and keeps none of our arrays; what comes after it may be anchored."""

    def __init__(self, theirs: Mapping[str, F], tolerance: Tolerance, anchored: Anchored, seen: Callable[[str], None]) -> None:
        self.theirs, self.tolerance, self.anchored, self.seen = theirs, tolerance, anchored, seen
        self.call, self.rows = 0, dict[str, Row]()

    def begin(self, call: int, fresh: int) -> None:
        self.call = call

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        self.seen(name)
        if key in self.theirs:
            self.rows[key] = compare(key, x, self.theirs[key], self.tolerance.of(key))
        return self.anchored(name, x)


def _whole(ours: F, theirs: F, fresh: int) -> F:
    return theirs


def _past(ours: F, theirs: F, fresh: int) -> F:
    """Their cache for the tokens of earlier calls, ours for this call's."""
    return np.concatenate([theirs[: len(theirs) - fresh], ours[len(ours) - fresh :]])


ANCHORS: dict[str, Callable[[F, F, int], F]] = {
    "l_out": _whole,
    "conv_states_reshaped": _whole,
    "state_predelta": _whole,
    "cache_k": _past,
    "cache_v": _past,
}


REPLACEMENTS: dict[str, Callable[[str], Callable[[F, F, int], F] | None]] = {
    "": lambda stem: None,
    "block": ANCHORS.get,
    "node": lambda stem: ANCHORS.get(stem, _whole),
}


def diff(
    model: Model,
    calls: Sequence[Sequence[int]],
    theirs: Mapping[str, F],
    route: Route,
    numerics: Numerics,
    tolerance: Tolerance,
    anchor: str = "",
    seen: Callable[[str], None] = lambda name: None,
) -> Diff:
    """Run the calls, one after another in one sequence, beside a recorded run of the same; with a draft head, if that had one.

    theirs  tap name -> array; call k >= 1 adds `@k`
    anchor  "", "block" or "node": whose numbers the pass goes on with, see Anchored
    seen    is told the name of every tap, for a progress bar
    """
    anchored = Anchored(theirs, anchor)
    comparing = Comparing(theirs, tolerance, anchored, seen)
    session = model.session(route, numerics, comparing, any(name.startswith("mtp_") for name in theirs), shows_scores(theirs))
    logits = list[LogitRow]()
    for call, ours in enumerate(run_calls(session, calls, comparing, anchored)):
        key = in_call("result_output", call)
        if key in theirs and theirs[key].size == ours.size and np.isfinite(ours).all() and np.isfinite(theirs[key]).all():
            logits += compare_logits(ours, theirs[key].reshape(ours.shape))
    nan: dict[str, Any] = dict.fromkeys(("nmse", "nmse_var", "max_abs", "cosine"), np.nan)
    missing = [
        Row(
            name=name, shape=(), allowed=tolerance.of(name), differ=theirs[name].size, problem="ours has no tap of this name", **nan
        )
        for name in theirs
        if name not in comparing.rows
    ]
    return Diff([*comparing.rows.values(), *missing], logits, tolerance)


def shows_scores(names: Iterable[str]) -> bool:
    """Whether attention's scores or weights are among these taps."""
    return any(name.startswith(("kq-", "kq_soft_max-")) for name in names)
