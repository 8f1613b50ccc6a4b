"""IQ4_NL: 32 weights, one scale, codes that look up a fixed, uneven table. Source: dequantize_row_iq4_nl."""

import numpy as np

from ..arrays import Blocks
from .bits import nibbles
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32
VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · VALUES[code]."""
    return plain(blocks["d"], VALUES[nibbles(blocks["qs"])])
