"""Compare a forward pass, as it runs, with a recorded one: a row for each tap, and a closer look at the logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import F, NDInt
from .model import Model
from .numerics import Numerics
from .route import Route
from .tolerance import Tolerance
from .trace import in_call


@dataclass(frozen=True)
class Row:
    """One compared tensor. All figures are of float64 arithmetic; ours is a, theirs is b.

    nmse      Σ(a−b)² / Σb², the definition of llama.cpp's test-backend-ops
    nmse_var  mean (a−b)² / var b, the definition of llama.cpp's check-nmse.py
    max_abs   max |a−b|
    cosine    a·b / |a||b|
    differ    how many numbers have other bits, both as float32
    allowed   the largest nmse within tolerance
    problem   why there are no figures: missing, not finite, another shape; empty otherwise
    """

    name: str
    shape: tuple[int, ...]
    nmse: float
    nmse_var: float
    max_abs: float
    cosine: float
    differ: int
    allowed: float
    problem: str = ""

    @property
    def within(self) -> bool:
        return not self.problem and self.nmse <= self.allowed


@dataclass(frozen=True)
class LogitRow:
    """The logits of one token.

    kl        Σ p_theirs · (log p_theirs − log p_ours), nats
    rank      place of their best token among ours, 0 the first
    margin    their best logit minus their second
    near_tie  the margin is less than twice the largest difference: which token is first cannot be decided
    """

    token: int
    nmse: float
    kl: float
    top1_ours: int
    top1_theirs: int
    rank: int
    margin: float
    near_tie: bool


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

    def __call__(self, name: str, x: F) -> F:
        replaces, key = self.replacement(name.partition("-")[0]), in_call(name, self.call)
        if replaces is None or key not in self.theirs:
            return x
        theirs = self.theirs[key]
        fits = squeezed(x.shape) == squeezed(theirs.shape) and bool(np.isfinite(theirs).all())
        return replaces(x, theirs.reshape(x.shape).astype(x.dtype), self.fresh) if fits else x

    def wants(self, name: str) -> bool:
        return False


class Comparing:
    """A tapper that measures every tap against theirs and keeps none of our arrays; what comes after it may be anchored."""

    def __init__(self, theirs: Mapping[str, F], tolerance: Tolerance, anchored: Anchored, seen: Callable[[str], None]) -> None:
        self.theirs, self.tolerance, self.anchored, self.seen = theirs, tolerance, anchored, seen
        self.call, self.rows = 0, dict[str, Row]()

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        self.seen(name)
        if key in self.theirs:
            self.rows[key] = compare(key, x, self.theirs[key], self.tolerance.of(key))
        return self.anchored(name, x)

    def wants(self, name: str) -> bool:
        return in_call(name, self.call) in self.theirs


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


def compare(name: str, ours: F, theirs: F, allowed: float) -> Row:
    """Measure one tensor. Axes of length 1 do not count as a difference of shape."""
    problem = ""
    if squeezed(ours.shape) != squeezed(theirs.shape):
        problem = f"shape {list(ours.shape)}, theirs {list(theirs.shape)}"
    elif not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        problem = "not finite: " + " and ".join(
            f"{np.size(x) - np.isfinite(x).sum()} of {who}"
            for who, x in (("ours", ours), ("theirs", theirs))
            if not np.isfinite(x).all()
        )
    if problem:
        return without_figures(name, ours.shape, ours.size, allowed, problem)
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    error, energy = a - b, float(b @ b)
    lost = float(error @ error)
    return Row(
        name=name,
        shape=ours.shape,
        nmse=ratio(lost, energy),
        nmse_var=ratio(lost / max(b.size, 1), float(b.var()) if b.size else 0.0),
        max_abs=float(np.abs(error).max(initial=0.0)),
        cosine=1.0 if lost == 0 else ratio(float(a @ b), float(np.sqrt(energy * (a @ a)))),
        differ=int((as_bits(ours) != as_bits(theirs)).sum()),
        allowed=allowed,
    )


def without_figures(name: str, shape: tuple[int, ...], size: int, allowed: float, problem: str) -> Row:
    return Row(name, shape, np.nan, np.nan, np.nan, np.nan, size, allowed, problem)


def as_bits(x: F) -> NDInt:
    return np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32)


def ratio(a: float, b: float) -> float:
    """a / b, where 0/0 is 0: equal zeros do not differ."""
    return a / b if b else (0.0 if a == 0 else np.inf)


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def compare_logits(ours: F, theirs: F) -> list[LogitRow]:
    """Token by token, [T, V] and [T, V]."""
    rows = []
    for t, (a, b) in enumerate(zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True)):
        p, q = log_softmax(b), log_softmax(a)
        second, first = np.partition(b, -2)[-2:] if b.size > 1 else (-np.inf, b[0])
        best = int(b.argmax())
        rows.append(
            LogitRow(
                token=t,
                nmse=ratio(float((a - b) @ (a - b)), float(b @ b)),
                kl=max(0.0, float(np.exp(p) @ (p - q))),
                top1_ours=int(a.argmax()),
                top1_theirs=best,
                rank=int((a > a[best]).sum()),
                margin=float(first - second),
                near_tie=bool(first - second <= 2 * np.abs(a - b).max()),
            )
        )
    return rows


def log_softmax(x: F) -> F:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())


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
    session, logits = model.session(route, numerics, comparing, any(name.startswith("mtp_") for name in theirs)), []
    for call, tokens in enumerate(calls):
        comparing.call, anchored.call, anchored.fresh = call, call, len(tokens)
        ours = session.forward(tokens)
        if session.draft:
            session.draft.logits()
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
