"""What a picture of a difference shows: the error of every token, and the likeliest tokens of both sides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F
from .rows import squeezed

LIKELIEST = 5


@dataclass(frozen=True)
class Choices:
    """The likeliest next tokens after one token, the likeliest first.

    call, token   which call, and the token's place in it
    ours, theirs  (token id, logit), LIKELIEST of them or the whole vocabulary
    """

    call: int
    token: int
    ours: Sequence[tuple[int, float]]
    theirs: Sequence[tuple[int, float]]


def likeliest(logits: F) -> list[tuple[int, float]]:
    """The LIKELIEST largest of logits [V], as (token id, logit); of equal ones the smaller id first."""
    count = min(LIKELIEST, logits.size)
    least = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= least)
    order = candidates[np.argsort(-logits[candidates], kind="stable")][:count]
    return [(int(i), float(logits[i])) for i in order]


def token_errors(ours: F, theirs: F) -> F | None:
    """NMSE of each token, float64 [T]: ours and theirs, [T, ...] each. None for other shapes, or numbers that are not finite."""
    if ours.ndim < 2 or squeezed(ours.shape) != squeezed(theirs.shape):
        return None
    a, b = (x.reshape(len(ours), -1).astype(np.float64) for x in (ours, theirs))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    lost, energy = np.square(a - b).sum(axis=1), np.square(b).sum(axis=1)
    return np.where(lost == 0, 0.0, lost / np.where(energy == 0, np.nan, energy))
