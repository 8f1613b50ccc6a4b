"""Twins of ops.deltanet: heads (or channels) in parallel, tokens in sequence."""

import numpy as np
from numba import njit, prange

FAST = {"contract", "reassoc", "nsz"}


@njit(parallel=True, cache=True)
def causal_conv1d(x, w):
    """Twin of ops.deltanet.causal_conv1d: taps are added in order, without contraction, as llama.cpp adds them."""
    C, K = w.shape
    T = x.shape[0] - K + 1
    out = np.empty((T, C), x.dtype)
    for t in prange(T):
        for c in range(C):
            total = x.dtype.type(0)
            for j in range(K):
                total += x[t + j, c] * w[c, j]
            out[t, c] = total
    return out


@njit(fastmath=FAST)
def _one_token(S, q, k, v, decay, beta, out):
    """Two passes over the rows of one head's state [Dv, Dk]."""
    for i in range(S.shape[0]):
        row = S[i]
        seen = S.dtype.type(0)
        for j in range(row.size):
            row[j] *= decay
            seen += row[j] * k[j]
        delta = beta * (v[i] - seen)
        total = S.dtype.type(0)
        for j in range(row.size):
            row[j] += delta * k[j]
            total += row[j] * q[j]
        out[i] = total


@njit(parallel=True, cache=True)
def gated_delta_rule(q, k, v, log_decay, beta, state):
    """Twin of ops.deltanet.gated_delta_rule."""
    S, out = state.copy(), np.empty_like(v)
    for h in prange(v.shape[1]):
        for t in range(v.shape[0]):
            _one_token(S[h], q[t, h], k[t, h], v[t, h], np.exp(log_decay[t, h]), beta[t, h], out[t, h])
    return out, S
