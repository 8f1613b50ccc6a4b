"""Twin of ops.rope in float32: sines and cosines are NumPy's, and one token after the other is turned, by several threads."""

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True)
def _turned(x, cos, sin, apart, step, out):
    """x [T, H, D], cos and sin [T, pairs]; pair i is (step · i, step · i + apart)."""
    pairs = cos.shape[1]
    for t in prange(len(x)):
        for h in range(x.shape[1]):
            for i in range(pairs):
                a, b = x[t, h, step * i], x[t, h, step * i + apart]
                out[t, h, step * i] = a * cos[t, i] - b * sin[t, i]
                out[t, h, step * i + apart] = a * sin[t, i] + b * cos[t, i]
            for i in range(2 * pairs, x.shape[2]):
                out[t, h, i] = x[t, h, i]


def rope(x, pos, how):
    """Twin of ops.rope.rope in float32: heads x [T, H, D] at positions pos [T] -> [T, H, D]; how is an ops.rope.Rope."""
    angles, x = how.angles(pos), np.ascontiguousarray(x, np.float32)
    cos, sin = ((how.magnitude * f(angles)).astype(np.float32) for f in (np.cos, np.sin))
    out = np.empty(x.shape, np.float32)
    _turned(x, cos, sin, *((1, 2) if how.adjacent else (how.n_rot // 2, 1)), out)
    return out
