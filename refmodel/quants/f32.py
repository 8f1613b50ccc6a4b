"""F32: plain floats."""

import numpy as np

from ..arrays import F32, Blocks

BLOCK = np.dtype([("x", "<f4")])
WEIGHTS = 1


def dequantize(blocks: Blocks) -> F32:
    """Blocks [...] -> [..., 1]."""
    return blocks["x"][..., None].astype(np.float32)
