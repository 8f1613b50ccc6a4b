"""IQ2_XS: 256 weights in 16 groups of 16: eights from a grid of 512, signs in seven bits. Source: dequantize_row_iq2_xs."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import grid, odd, signs
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d / 8 · (2 scale + 1)) · grid · sign.

    Nine bits of a word are the index, seven the signs.
    """
    codes = grid("IQ2_XS")[blocks["qs"] & 511] * signs()[blocks["qs"] >> 9]
    scales = (blocks["scales"][..., None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape, 16)
    return Integers(np.float32(0.125) * f32(blocks["d"]), codes.reshape(*blocks.shape, 256), odd(scales))
