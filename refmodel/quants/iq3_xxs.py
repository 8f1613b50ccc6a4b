"""IQ3_XXS: 256 weights in 8 groups of 32: fours from a grid of 256, signs in seven bits. Source: dequantize_row_iq3_xxs."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import grid, odd, signs
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("rest", "<u4", 8)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d / 4 · (2 scale + 1)) · grid · sign.

    `rest` has four times seven bits of signs, and the scale above them.
    """
    rest = blocks["rest"]
    sign = signs()[rest[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127]
    codes = grid("IQ3_XXS")[blocks["qs"]].reshape(*blocks.shape, 256) * sign.reshape(*blocks.shape, 256)
    return Integers(np.float32(0.25) * f32(blocks["d"]), codes, odd(rest >> 28))
