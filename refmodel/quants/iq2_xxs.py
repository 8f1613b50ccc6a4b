"""IQ2_XXS: 256 weights in 8 groups of 32: eights from a grid of 256, signs in seven bits. Source: dequantize_row_iq2_xxs."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import grid, odd, signs
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", [("index", "u1", 4), ("rest", "<u4")], 8)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d / 8 · (2 scale + 1)) · grid · sign.

    `rest` has four times seven bits of signs, and the scale above them.
    """
    rest = blocks["qs"]["rest"]
    sign = signs()[rest[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127]
    codes = grid("IQ2_XXS")[blocks["qs"]["index"]] * sign
    return Integers(np.float32(0.125) * f32(blocks["d"]), codes.reshape(*blocks.shape, 256), odd(rest >> 28))
