"""The product with a packed matrix."""

import numpy as np

from ..arrays import F, Matrix
from ..quants import dequantize

PANEL = 1 << 22  # weights decoded at once: 16 MB of float32


def linear(w: Matrix, x: F) -> F:
    """x [T, I] times the packed w [O, I], in the dtype of x: [T, O]. Rows are decoded panel by panel, never all at once."""
    O, I = w.shape
    step = max(1, PANEL // I)
    panels = (dequantize(w.type, w.rows[start : start + step]).astype(x.dtype) for start in range(0, O, step))
    return np.concatenate([np.einsum("ti,oi->to", x, panel) for panel in panels], axis=1)
