"""The gated delta rule with a step in the wrong place, token by token."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from ..ops.ieee import bfloat

Step = Callable[[F, F, F, F, F, F], tuple[F, F]]
"""One token of all heads: (state S [Hv, Dv, Dk], q, k [Hv, Dk], v [Hv, Dv], decay, beta [Hv, 1, 1]) -> (S, output [Hv, Dv])."""


def rule(step: Step) -> Callable[..., Any]:
    """A gated delta rule that takes this step for each token; for `changes.operation`."""

    def run(healthy: Any, hp: Hparams, q: F, k: F, v: F, log_decay: F, beta: F, before: F, after: F) -> F:
        S, out, repeat = before.copy(), np.empty_like(v), len(before) // k.shape[1]
        q, k = (np.tile(x, (1, repeat, 1)) for x in (q, k))
        for t in range(len(v)):
            decay = np.exp(log_decay[t])[:, None, None]
            S, out[t] = step(S, q[t], k[t], v[t], decay, beta[t][:, None, None])
        after[:] = S
        return out

    return run


def times(S: F, x: F) -> F:
    """The states S [Hv, Dv, Dk] times the vectors x [Hv, Dk]: [Hv, Dv]."""
    return np.einsum("hvk,hk->hv", S, x)


def written(S: F, k: F, v: F, beta: F) -> F:
    """S + beta (v - S k) k^T, without a decay."""
    return S + beta * (v - times(S, k))[:, :, None] * k[:, None]


def decay_after_write(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The state is corrected first, and then it decays, the new token with it."""
    S = decay * written(S, k, v, beta)
    return S, times(S, q)


def decay_after_read(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The state is corrected and read, and decays only for the next token."""
    S = written(S, k, v, beta)
    return decay * S, times(S, q)


def decay_not_before_prediction(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """What the state knows of a key is taken from before the decay."""
    S = decay * S + beta * (v - times(S, k))[:, :, None] * k[:, None]
    return S, times(S, q)


def without_delta(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """Plain gated linear attention: what the state knows of a key is not taken off."""
    S = decay * S + beta * v[:, :, None] * k[:, None]
    return S, times(S, q)


def as_mamba(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The scan of Mamba 2: the state decays and takes up v k^T, whatever beta is."""
    S = decay * S + v[:, :, None] * k[:, None]
    return S, times(S, q)


def read_transposed(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The state is read with its axes exchanged."""
    S = written(decay * S, k, v, beta)
    return S, np.einsum("hvk,hv->hk", S, q)


def kept_in_bfloat(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The state is rounded to bfloat16 after each token."""
    S = bfloat(written(decay * S, k, v, beta).astype(np.float32)).astype(S.dtype)
    return S, times(S, q)


def kept_in_half(S: F, q: F, k: F, v: F, decay: F, beta: F) -> tuple[F, F]:
    """The state is rounded to float16 after each token."""
    S = written(decay * S, k, v, beta).astype(np.float16).astype(S.dtype)
    return S, times(S, q)
