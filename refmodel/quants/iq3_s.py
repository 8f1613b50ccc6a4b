"""IQ3_S: 256 weights in 8 groups of 32: fours from a grid of 512, a bit for each sign. Source: dequantize_row_iq3_s."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .grids import each_bit, grid, odd
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d · (2 scale + 1)) · grid · sign.

    `qh` has the ninth bit of eight indices.
    """
    ninth = np.unpackbits(blocks["qh"], axis=-1, bitorder="little").astype(np.uint16)
    scales = (blocks["scales"][..., None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape, 8)
    codes = grid("IQ3_S")[blocks["qs"] | ninth << 8].reshape(*blocks.shape, 256)
    return Integers(f32(blocks["d"]), codes * each_bit(blocks["signs"]).reshape(*blocks.shape, 256), odd(scales))
