"""The two recurrent operations of a Gated-DeltaNet layer."""

import numpy as np

from ..arrays import F


def causal_conv1d(x: F, w: F) -> F:
    """Depthwise causal convolution, without a bias.

    x  [K-1+T, C]  the first K-1 rows are what the layer remembers
    w  [C, K]      tap K-1 multiplies the current token

    Returns [T, C]. Source: arXiv:2312.00752, section 3.4; ggml_compute_forward_ssm_conv_f32.
    """
    T = len(x) - w.shape[1] + 1
    return sum((x[j : j + T] * w[:, j] for j in range(w.shape[1])), start=np.zeros((T, len(w)), x.dtype))


def gated_delta_rule(q: F, k: F, v: F, log_decay: F, beta: F, before: F, after: F) -> F:
    """Run the gated delta rule, one token at a time.

    Per head, with S of shape [Dv, Dk]:  S ← e^g S;  S ← S + β (v − S k) kᵀ;  o = S q

    q, k       [T, Hk, Dk]   unit-norm; value head h reads key head h % Hk
    v          [T, Hv, Dv]
    log_decay  [T, Hv]       g, natural log, ≤ 0
    beta       [T, Hv]       in (0, 1)
    before     [Hv, Dv, Dk]  the state before the first token
    after      [Hv, Dv, Dk]  receives the state after the last one; may be `before` itself, which else is left as it is

    Returns the outputs [T, Hv, Dv].
    Source: arXiv:2412.06464, section 3.1; ggml_compute_forward_gated_delta_net.
    """
    S, out, repeat = before.copy(), np.empty_like(v), len(before) // k.shape[1]
    q, k = np.tile(q, (1, repeat, 1)), np.tile(k, (1, repeat, 1))  # [T, Hv, Dk]
    for t in range(len(v)):
        S *= np.exp(log_decay[t])[:, None, None]
        delta = beta[t][:, None] * (v[t] - np.einsum("hvk,hk->hv", S, k[t]))
        S += delta[:, :, None] * k[t][:, None, :]
        out[t] = np.einsum("hvk,hk->hv", S, q[t])
    after[:] = S
    return out
