"""Twin of ops.rope in float32: sines and cosines are NumPy's, and one token after the other is rotated, by several threads."""

from functools import cache

import numpy as np
from numba import njit, types

from .language.threads import NUMBER, in_threads, worth

NANOSECONDS = 1.0  # for a number
HEADS, PAIRS = (types.Array(types.float32, ndim, "C") for ndim in (3, 2))


@njit(cache=True)
def _tokens(x, cos, sin, distance, step, out, first, last):
    """The tokens `first` to `last` of x [T, H, D]; cos and sin [T, pairs]; pair i is (step · i, step · i + distance)."""
    pairs = cos.shape[1]
    for t in range(first, last):
        for h in range(x.shape[1]):
            for i in range(pairs):
                a, b = x[t, h, step * i], x[t, h, step * i + distance]
                out[t, h, step * i] = a * cos[t, i] - b * sin[t, i]
                out[t, h, step * i + distance] = a * sin[t, i] + b * cos[t, i]
            for i in range(2 * pairs, x.shape[2]):
                out[t, h, i] = x[t, h, i]


@cache
def _in_threads():
    return in_threads(_tokens, (), HEADS, PAIRS, PAIRS, NUMBER, NUMBER, HEADS)


def rope(x, pos, how):
    """Twin of ops.rope.rope in float32: heads x [T, H, D] at positions pos [T] -> [T, H, D]; how is an ops.rope.Rope."""
    angles, x = how.angles(pos), np.ascontiguousarray(x, np.float32)
    cos, sin = (np.ascontiguousarray(how.magnitude * f(angles), np.float32) for f in (np.cos, np.sin))
    out, pairs = np.empty(x.shape, np.float32), (1, 2) if how.adjacent else (how.n_rot // 2, 1)
    many = worth(NANOSECONDS * x[:1].size)
    _in_threads()(len(x), many, x, cos, sin, *pairs, out)
    return out
