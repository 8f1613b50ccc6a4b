"""TQ2_0: 256 weights of three values in two bits each, one scale. Source: dequantize_row_tq2_0."""

import numpy as np

from ..arrays import Blocks
from .integers import Integers, plain

BLOCK = np.dtype([("qs", "u1", 64), ("d", "<f2")])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights, taken apart: d · (code − 1)."""
    halves = blocks["qs"].reshape(*blocks.shape, 2, 1, 32)
    codes = halves >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    return plain(blocks["d"], codes.reshape(*blocks.shape, 256).astype(np.int8) - 1)
