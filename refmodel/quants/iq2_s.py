"""IQ2_S: 256 weights in 16 groups of 16: eights from a grid of 1024, a bit for each sign. Source: dequantize_row_iq2_s."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import each_bit, grid, odd
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d / 8 · (2 scale + 1)) · grid · sign.

    `qh` has the upper two bits of four indices.
    """
    high = blocks["qh"][..., None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    index = blocks["qs"] | high.reshape(*blocks.shape, 32).astype(np.uint16) << 8
    scales = (blocks["scales"][..., None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape, 16)
    codes = grid("IQ2_S")[index] * each_bit(blocks["signs"])
    return Integers(np.float32(0.125) * f32(blocks["d"]), codes.reshape(*blocks.shape, 256), odd(scales))
