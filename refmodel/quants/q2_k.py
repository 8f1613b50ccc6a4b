"""Q2_K: 256 weights in 16 groups of 16, each with a 4-bit scale and a 4-bit minimum. Source: dequantize_row_q2_K."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32

BLOCK = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
WEIGHTS = 256


def dequantize(blocks: Blocks) -> F32:
    """(d · scale) · code − dmin · minimum; blocks [...] -> [..., 256]."""
    scale = f32(blocks["d"]) * (blocks["scales"] & 15).astype(np.float32)
    minimum = f32(blocks["dmin"]) * (blocks["scales"] >> 4).astype(np.float32)
    halves = blocks["qs"].reshape(*blocks.shape, 2, 1, 32)
    codes = halves >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3  # [..., half, group of 32, 32]
    codes = codes.reshape(*blocks.shape, 16, 16).astype(np.float32)
    return (scale[..., None] * codes - minimum[..., None]).reshape(*blocks.shape, 256)
