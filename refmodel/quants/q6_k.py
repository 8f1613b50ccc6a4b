"""Q6_K: 256 weights in 16 groups of 16 with signed 8-bit scales, 6-bit codes around 32. Source: dequantize_row_q6_K."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .integers import Integers

BLOCK = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d · scale) · (code − 32)."""
    ql, qh = blocks["ql"].reshape(*blocks.shape, 2, 1, 64), blocks["qh"].reshape(*blocks.shape, 2, 1, 32)
    low = (ql >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(*blocks.shape, 2, 4, 32)  # half, quarter of it, 32
    high = qh >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = ((low | high << 4).astype(np.int8) - 32).reshape(*blocks.shape, 256)
    return Integers(f32(blocks["d"]), codes, blocks["scales"].astype(np.int16))
