"""Element-wise functions. Any shape; the dtype of the argument is the dtype of the result."""

import math

import numpy as np

from ..arrays import F


def sigmoid(x: F) -> F:
    """1 / (1 + e^-x). Source: op_sigmoid in unary-ops.cpp."""
    with np.errstate(over="ignore"):  # e^-x may be inf: the quotient is then the right limit, 0
        return 1 / (1 + np.exp(-x))


def silu(x: F) -> F:
    """x · sigmoid(x). Source: arXiv:1702.03118; ggml_vec_silu_f32."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def swiglu(gate: F, up: F) -> F:
    """silu(gate) · up, two arrays of one shape. Source: arXiv:2002.05202; ggml_vec_swiglu_f32."""
    return silu(gate) * up


def soft_max(x: F) -> F:
    """e^x / Σ e^x over the last axis; the largest x is subtracted first. Source: ggml_compute_forward_soft_max_f32."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def gelu(x: F) -> F:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), the approximation that gemma is trained with. Source: arXiv:1606.08415."""
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def geglu(gate: F, up: F) -> F:
    """gelu(gate) · up, two arrays of one shape. Source: arXiv:2002.05202; ggml_vec_geglu_f32."""
    return gelu(gate) * up


def softcap(x: F, cap: float) -> F:
    """cap · tanh(x / cap): numbers that stay between −cap and cap. Source: arXiv:2408.00118; GGML_UNARY_OP_TANH."""
    return cap * np.tanh(x / cap)


def softplus(x: F) -> F:
    """log(1 + e^x), and x itself above 20, as ggml_compute_softplus_f32 has it (the difference is below 3e-9)."""
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))
