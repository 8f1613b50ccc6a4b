"""The two recurrent operations of a Gated-DeltaNet layer."""

import numpy as np

from ..arrays import F


def causal_conv1d(x: F, w: F) -> F:
    """Depthwise causal convolution, [K-1+T, C] with kernel [C, K] -> [T, C].

    The first K-1 rows of x are what the layer remembers; tap K-1 multiplies the current token. No bias.
    Source: arXiv:2312.00752, section 3.4; ggml_compute_forward_ssm_conv_f32.
    """
    T = len(x) - w.shape[1] + 1
    return sum((x[j : j + T] * w[:, j] for j in range(w.shape[1])), start=np.zeros((T, len(w)), x.dtype))


def gated_delta_rule(q: F, k: F, v: F, log_decay: F, beta: F, state: F) -> tuple[F, F]:
    """Run the gated delta rule, one token at a time.

    Per head, with S of shape [Dv, Dk]:  S ← e^g S;  S ← S + β (v − S k) kᵀ;  o = S q

    q, k       [T, Hv, Dk]   unit-norm; heads already repeated to Hv
    v          [T, Hv, Dv]
    log_decay  [T, Hv]       g, natural log, ≤ 0
    beta       [T, Hv]       in (0, 1)
    state      [Hv, Dv, Dk]  before the first token; left as it is

    Returns the outputs [T, Hv, Dv] and the state after the last token.
    Source: arXiv:2412.06464, section 3.1; ggml_compute_forward_gated_delta_net.
    """
    S, out = state.copy(), np.empty_like(v)
    for t in range(len(v)):
        S *= np.exp(log_decay[t])[:, None, None]
        delta = beta[t][:, None] * (v[t] - np.einsum("hvk,hk->hv", S, k[t]))
        S += delta[:, :, None] * k[t][:, None, :]
        out[t] = np.einsum("hvk,hk->hv", S, q[t])
    return out, S
