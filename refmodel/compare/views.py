"""What of a tap another program's dump has, where that is not all of it: some tokens, some numbers, log-probabilities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..arrays import F, Ints


@dataclass(frozen=True)
class View:
    """How an array that has not all of a tap is compared with it.

    pair  (our whole tap, their array) -> both as they are to be compared, of one shape
    step  the largest error that writing the numbers down made: one number, or an array that broadcasts to theirs
    rows  the tokens of the call whose logits these are; empty if they are not whole rows of logits
    kept  [k] the tokens of the call that the array has, where it has whole rows as they were computed; else None
    """

    pair: Callable[[F, F], tuple[F, F]]
    step: F | float = 0.0
    rows: Sequence[int] = ()
    kept: Ints | None = None

    def settled(self, ours: F, theirs: F) -> tuple[F, F]:
        """A pair with the benefit of the doubt: ours moved towards theirs by what writing theirs down may have lost."""
        if not np.any(self.step) or ours.shape != theirs.shape:
            return ours, theirs
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        apart = np.sign(a - b) * np.maximum(np.abs(a - b) - self.step, 0)
        return b + np.where(np.isfinite(apart), apart, a - b), b


ALL_WHOLE: Mapping[str, View] = MappingProxyType({})


def of_rows(first: int, count: int, logits: bool, step: F | float = 0.0) -> View:
    """A view of `count` tokens from `first` on; theirs has the same shape but for those."""

    def pair(ours: F, theirs: F) -> tuple[F, F]:
        part = ours[first : first + count]
        return part, theirs.reshape(part.shape) if theirs.size == part.size else theirs

    tokens = np.arange(first, first + count)
    return View(pair, step, range(first, first + count) if logits else (), None if np.any(step) else tokens)


def of_tokens(tokens: Ints) -> View:
    """A view of the logits of some tokens [k] of a call, in order."""
    return View(lambda ours, theirs: (ours[tokens], theirs), 0.0, [int(token) for token in tokens], tokens)


def printed(at: Ints, step: F | float, count: int, total: float) -> View:
    """A view of single numbers of the flat tap, [k], and of the sum of all its `count` numbers where `total` is finite.

    The sum is two more numbers, divided so that its part of an NMSE is at most half of the whole tap's (Cauchy and Schwarz): what
    explains the tap explains the sum. A sum in float32 may be off by the square root of the count, in units of its last place.
    """
    if not np.isfinite(total):
        return View(lambda ours, theirs: (ours.reshape(-1)[at], theirs), step)

    def pair(ours: F, theirs: F) -> tuple[F, F]:
        x = ours.astype(np.float64).ravel()
        length, ours_sum = float(np.sqrt(x @ x)), float(x.sum())
        lost = 1e-6 + 3 * 2.0**-24 * float(np.sqrt(count)) * float(np.abs(x).sum())
        theirs_sum = ours_sum if abs(total - ours_sum) <= lost else total
        weight = float(np.sqrt(theirs @ theirs)) / max(length, 1e-300)
        ends = [weight * np.array([s / np.sqrt(count), length]) for s in (ours_sum, theirs_sum)]
        return np.concatenate([x[at], ends[0]]), np.concatenate([theirs, ends[1]])

    return View(pair, np.append(np.full(len(at), step), [0.0, 0.0]))


def log_probabilities(rows: Ints, at: Ints | None, least: F | None, step: F | float) -> View:
    """A view of logits [T, V] as natural log-probabilities.

    rows   [k] the tokens
    at     [n] places in the flat [k, V]; None for all, [k, V]
    least  [k] what smaller log-probabilities were written as
    """

    def pair(ours: F, theirs: F) -> tuple[F, F]:
        x = ours[rows].astype(np.float64)
        x = x - x.max(axis=1, keepdims=True)
        x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
        if least is not None:
            x, theirs = np.maximum(x, least[:, None]), np.maximum(theirs, least[:, None])
        return (x if at is None else x.reshape(-1)[at]), theirs.reshape(x.shape) if at is None else theirs

    return View(pair, step, [int(row) for row in rows] if at is None else ())
