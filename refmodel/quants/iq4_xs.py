"""IQ4_XS: 256 weights in 8 groups of 32 with 6-bit scales, the table of IQ4_NL. Source: dequantize_row_iq4_xs."""

import numpy as np

from ..arrays import Blocks
from .bits import f32, nibbles
from .integers import Integers
from .iq4_nl import VALUES

BLOCK = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d · (scale − 32)) · VALUES[code]."""
    low = (blocks["scales_l"][..., None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape, 8)
    high = (blocks["scales_h"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3).astype(np.uint8)
    codes = VALUES[nibbles(blocks["qs"].reshape(*blocks.shape, 8, 16))].reshape(*blocks.shape, 256)
    return Integers(f32(blocks["d"]), codes, (low | high << 4).astype(np.int16) - 32)
