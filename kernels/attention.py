"""Twin of ops.attention: every (token, head) pair is one unit of parallel work."""

import numpy as np
from numba import njit, prange

FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=FAST)
def _dot(a, b):
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(fastmath=FAST)
def _one_row(q, k, v, scale, weights, out):
    """One query head [D] over keys and values [S, D]; leaves the weights times their sum and returns the sum."""
    top = q.dtype.type(-np.inf)
    for s in range(weights.size):
        weights[s] = _dot(q, k[s])
        top = max(top, weights[s])
    total = q.dtype.type(0)
    out[:] = 0
    for s in range(weights.size):
        p = np.exp(scale * (weights[s] - top))
        total += p
        for d in range(out.size):
            out[d] += p * v[s, d]
    for d in range(out.size):
        out[d] /= total
    return top, total


@njit(parallel=True, cache=True)
def attention(q, k, v, scale, kq, kq_soft_max, window=0):
    """Twin of ops.attention.attention; memory grows with S, never with T x S, unless kq is asked for."""
    T, H, _ = q.shape
    S, G, _ = k.shape
    factor, out = q.dtype.type(scale), np.empty_like(q)
    for unit in prange(T * H):
        t, h = unit // H, unit % H
        g, seen = h // (H // G), S - T + t + 1
        first = max(0, seen - window) if window else 0
        raw = np.empty(seen - first, q.dtype)
        top, total = _one_row(q[t, h], k[first:seen, g], v[first:seen, g], factor, raw, out[t, h])
        if kq.size:
            kq[h, t, first:seen] = raw
            kq_soft_max[h, t, first:seen] = np.exp(factor * (raw - top)) / total
    return out
