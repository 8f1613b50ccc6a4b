"""Q1_0: 128 weights, one scale, a bit each. Source: dequantize_row_q1_0."""

import numpy as np

from ..arrays import Blocks
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 128


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 128 weights, taken apart: d where the bit is set, −d where it is not."""
    return plain(blocks["d"], 2 * np.unpackbits(blocks["qs"], axis=-1, bitorder="little").astype(np.int8) - 1)
