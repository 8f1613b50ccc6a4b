"""Q8_0: 32 weights, one scale, signed bytes. Source: dequantize_row_q8_0."""

import numpy as np

from ..arrays import Blocks
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """d · code."""
    return plain(blocks["d"], blocks["qs"])
