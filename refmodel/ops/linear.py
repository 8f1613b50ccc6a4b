"""The product with a packed matrix."""

import numpy as np

from ..arrays import F32, DType, F, Ints, Matrix
from ..quants import QUANTS, dequantize
from .ggml_floats import dot_sgemm

PANEL = 1 << 22  # weights decoded at once: 16 MB of float32


def embed(w: Matrix, tokens: Ints, dtype: DType) -> F:
    """The rows of the embedding w [V, E] for the tokens [T], decoded: [T, E] of that dtype. Source: ggml_get_rows."""
    return dequantize(w.type, w.rows[tokens]).astype(dtype)


def linear(w: Matrix, x: F) -> F:
    """x [T, I] times the packed w [O, I], in the dtype of x: [T, O]. Source: ggml_mul_mat.

    Rows are decoded panel by panel, never all at once. TensorError for a type that has no weights to decode.
    """
    O, I = w.shape
    step, rows = max(1, PANEL // I), w.rows
    panels = (dequantize(w.type, rows[start : start + step]).astype(x.dtype) for start in range(0, O, step))
    return np.concatenate([np.einsum("ti,oi->to", x, panel) for panel in panels], axis=1)


def eight_lanes(w: Matrix, x: F32) -> F32:
    """`linear` of float32 in the kernels' order: that of dot_sgemm, after packed rows and their tokens are turned. [T, O]"""
    lay = turned if w.type in QUANTS else filled_up
    return dot_sgemm(lay(dequantize(w.type, w.rows))[None], lay(x)[:, None], lanes=8)


def turned(x: F) -> F:
    """Rows [R, I] in which every 32 numbers, as [8, 4], are transposed: so one lane of eight sums four neighbours at a time."""
    return np.ascontiguousarray(x.reshape(len(x), -1, 8, 4).swapaxes(2, 3)).reshape(x.shape)


def filled_up(x: F) -> F:
    """Rows [R, I] with zeros at the end, up to a multiple of 8 columns."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % 8)))
