"""The gated delta rule and its convolution written out in float64, as the laws compare with. Nothing of it is shared with ops/."""

import numpy as np

from ..arrays import F


def rule(q: F, k: F, v: F, log_decay: F, beta: F, state: F) -> tuple[F, F]:
    """The recurrence, a token and a head at a time: the outputs [T, H, Dv] and the state [H, Dv, Dk] after them, float64.

    The arguments are those of engine.Rule. Source: arXiv:2412.06464, section 3.1.
    """
    S = np.array(state, np.float64)
    out = np.zeros(v.shape)
    for t in range(len(v)):
        for h in range(v.shape[1]):
            key = k[t, h].astype(np.float64)
            decayed = np.exp(np.float64(log_decay[t, h])) * S[h]
            S[h] = decayed + np.float64(beta[t, h]) * np.outer(v[t, h] - decayed @ key, key)
            out[t, h] = S[h] @ q[t, h].astype(np.float64)
    return out, S


def conv(x: F, w: F, before: F) -> tuple[F, F]:
    """The causal convolution, token by token; the arguments are those of engine.Conv."""
    whole = np.concatenate([before, x]).astype(np.float64)
    K = w.shape[1]
    out = [sum(w[:, j].astype(np.float64) * whole[t + j] for j in range(K)) for t in range(len(x))]
    return np.array(out).reshape(x.shape), whole[len(whole) - (K - 1) :]
