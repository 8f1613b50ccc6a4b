"""Q2_0: 64 weights, one scale, codes of two bits around 1. Source: dequantize_row_q2_0."""

import numpy as np

from ..arrays import Blocks
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 64


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 64 weights, taken apart: d · (code − 1); four neighbours share a byte, the first in its lowest bits."""
    codes = blocks["qs"][..., None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    return plain(blocks["d"], codes.reshape(*blocks.shape, 64).astype(np.int8) - 1)
