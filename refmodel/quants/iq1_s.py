"""IQ1_S: 256 weights in 8 groups of 32: eights of −1, 0 and 1 from a grid of 2048, moved by an eighth.

Source: dequantize_row_iq1_s.
"""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import grid, minus, odd
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d / 8 · (2 scale + 1)) · (8 grid ± 1).

    `qh` has the upper three bits of four indices, scale and move.
    """
    qh = blocks["qh"]
    index = blocks["qs"].reshape(*blocks.shape, 8, 4) | (qh[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7) << 8
    codes = 8 * grid("IQ1_S")[index].reshape(*blocks.shape, 8, 32) + minus(qh >> 15)[..., None]
    return Integers(np.float32(0.125) * f32(blocks["d"]), codes.reshape(*blocks.shape, 256), odd(qh >> 12 & 7))
