"""Root-mean-square norms."""

import numpy as np

from ..arrays import F


def rms_norm(x: F, eps: float) -> F:
    """x / sqrt(mean(x²) + eps) over the last axis; the weight is multiplied by the caller. Any shape, dtype of x.

    Source: arXiv:1910.07467; ggml_compute_forward_rms_norm_f32.
    """
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))


def inverse_root(n: int) -> float:
    """n^-0.5: this factor keeps dot products of n numbers from growing with n."""
    return float(n**-0.5)
