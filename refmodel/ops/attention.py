"""Causal grouped-query attention."""

import math

import numpy as np

from ..arrays import F, Ints


def first_seen(seen: int, window: int) -> int:
    """The number of the first key that a query sees, of `seen` keys up to itself; `window` is how many it sees, 0 for all."""
    return max(0, seen - window) if window else 0


def attention(q: F, k: F, v: F, scale: float, kq: F, kq_soft_max: F, window: int) -> F:
    """Let each of the T newest tokens attend to itself and to all tokens before it.

    q            [T, H, D]
    k, v         [S, G, D]   cached and new; query head h reads head h // (H/G); token t is key S - T + t
    scale        factor of the raw scores, D**-0.5
    kq           [H, T, S]   receives the raw scores, 0 for keys of the future; empty if they are not needed
    kq_soft_max  [H, T, S]   receives the weights of the values; or empty
    window       how many of the newest tokens a query sees, itself among them; 0 for all

    Returns [T, H, D]. A row is computed from its own keys only, so its bits do not depend on T.
    Source: arXiv:2305.13245; build_attn_mha.
    """
    (T, H, D), (S, G, _) = q.shape, k.shape
    out = np.empty_like(q)
    for t in range(T):
        seen = S - T + t + 1
        first = first_seen(seen, window)
        heads = q[t].reshape(G, H // G, D)
        raw = np.einsum("grd,sgd->grs", heads, k[first:seen])
        weights = np.exp(scale * (raw - raw.max(axis=-1, keepdims=True)))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[t] = np.einsum("grs,sgd->grd", weights, v[first:seen]).reshape(H, D)
        if kq.size:
            kq[:, t, first:seen], kq_soft_max[:, t, first:seen] = raw.reshape(H, -1), weights.reshape(H, -1)
    return out


def as_it_is(x: F) -> F:
    """What the cache does to keys and values x before they are read again: nothing. Some numerics round them to half floats."""
    return x


def growth(pos: Ints, trained: int, scale: float) -> F:
    """The factors [T] of queries at positions pos [T], float64: 1 + scale · ln(1 + ⌊position / trained⌋).

    trained  tokens of the context of the training: there the factor is 1

    Source: arXiv:2501.19399; llm_graph_input_attn_temp, which computes them in float64 as well.
    """
    return np.array([1 + scale * math.log(1 + position // trained) for position in pos.tolist()])
