"""Rotary position embedding."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..arrays import F, Ints


@dataclass(frozen=True)
class Rope:
    """How heads are rotated.

    base       the angle of pair i at position p is p · scale · base^(-2i/n_rot) / factors[i], in radians
    n_rot      rotated dimensions; those after them stay as they are
    adjacent   pairs are (2i, 2i+1), ggml's NORM; otherwise (i, i + n_rot/2), ggml's NEOX
    scale      1/factor of a linear scaling, else 1
    factors    one divisor for each pair, [n_rot/2]; infinity for a pair that text does not turn
    unscaled   YaRN: how much of each pair's angle is not scaled, [n_rot/2] from 0 to 1; empty for nothing
    magnitude  factor of the rotated dimensions, 1 where nothing is scaled by YaRN
    """

    base: float
    n_rot: int
    adjacent: bool
    scale: float
    factors: tuple[float, ...]
    unscaled: tuple[float, ...] = ()
    magnitude: float = 1.0

    def angles(self, pos: Ints) -> F:
        """The angles [T, n_rot/2] at positions pos [T], in radians, float64: exact to the last place, not an iterated product."""
        return pos[:, None] * speeds(self)


@cache
def speeds(how: Rope) -> F:
    """The angles at position 1 [n_rot/2], in radians, float64."""
    pair, kept = np.arange(how.n_rot // 2), np.array(how.unscaled or 0.0)
    speed = np.exp(pair * (-2 * math.log(how.base) / how.n_rot)) / np.array(how.factors)
    return (how.scale * (1 - kept) + kept) * speed


def rope(x: F, pos: Ints, how: Rope) -> F:
    """Rotate heads x [T, H, D] at positions pos [T]; result of the same shape and dtype.

    Source: arXiv:2104.09864; ggml_compute_forward_rope.
    """
    half, out, angles = how.n_rot // 2, x.copy(), how.angles(pos)
    first = slice(0, how.n_rot, 2) if how.adjacent else slice(0, half)
    second = slice(1, how.n_rot, 2) if how.adjacent else slice(half, how.n_rot)
    cos, sin = ((how.magnitude * f(angles)).astype(x.dtype)[:, None, :] for f in (np.cos, np.sin))  # [T, 1, n_rot/2]
    out[:, :, first] = x[:, :, first] * cos - x[:, :, second] * sin
    out[:, :, second] = x[:, :, first] * sin + x[:, :, second] * cos
    return out
