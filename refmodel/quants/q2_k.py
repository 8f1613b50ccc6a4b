"""Q2_K: 256 weights in 16 groups of 16, each with a 4-bit scale and a 4-bit minimum. Source: dequantize_row_q2_K."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .integers import Integers

BLOCK = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d · scale) · code − dmin · minimum."""
    halves = blocks["qs"].reshape(*blocks.shape, 2, 1, 32)
    codes = halves >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3  # [..., half, group of 32, 32]
    scales, minima = (blocks["scales"] & 15).astype(np.int16), (blocks["scales"] >> 4).astype(np.int16)
    return Integers(f32(blocks["d"]), codes.reshape(*blocks.shape, 256).astype(np.int8), scales, f32(blocks["dmin"]), minima)
