"""IQ1_M: IQ1_S with a move for every eight weights, 16 scales, and the block's own scale in the scales' upper bits.

Source: dequantize_row_iq1_m.
"""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import grid, minus, odd
from .integers import Integers

BLOCK = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d / 8 · (2 scale + 1)) · (8 grid ± 1)."""
    packed = blocks["scales"]
    d = np.bitwise_or.reduce(packed >> 12 << np.array([0, 4, 8, 12], np.uint16), axis=-1).astype(np.uint16).view(np.float16)
    scales = (packed[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(*blocks.shape, 16)
    high = (blocks["qh"][..., None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape, 32)  # three bits, and the move
    index = blocks["qs"] | (high & 7).astype(np.uint16) << 8
    codes = 8 * grid("IQ1_M")[index] + minus(high >> 3)[..., None]
    return Integers(np.float32(0.125) * f32(d), codes.reshape(*blocks.shape, 256), odd(scales))
