"""Q8_0: 32 weights, one scale, signed bytes. Source: dequantize_row_q8_0."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32

BLOCK = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
WEIGHTS = 32


def dequantize(blocks: Blocks) -> F32:
    """d · code; blocks [...] -> [..., 32]."""
    return f32(blocks["d"]) * blocks["qs"].astype(np.float32)
