"""Q3_K: 256 weights in 16 groups of 16 with 6-bit scales, 3-bit codes around 4. Source: dequantize_row_q3_K."""

import numpy as np

from ..arrays import Blocks
from .bits import f32
from .integers import Integers

BLOCK = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 16 groups, taken apart: (d · (scale − 32)) · (code − 4)."""
    packed = blocks["scales"]
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    high = (packed[..., None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(low.shape)
    two = blocks["qs"].reshape(*blocks.shape, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    third = blocks["hmask"].reshape(*blocks.shape, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None] & 1
    codes = (two.reshape(*blocks.shape, 256) | third.reshape(*blocks.shape, 256) << 2).astype(np.int8) - 4
    return Integers(f32(blocks["d"]), codes, (low | high << 4).astype(np.int16) - 32)
