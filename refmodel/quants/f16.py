"""F16: IEEE half floats."""

import numpy as np

from ..arrays import F32, Blocks

BLOCK = np.dtype([("x", "<f2")])
WEIGHTS = 1


def dequantize(blocks: Blocks) -> F32:
    """Blocks [...] -> [..., 1]; exact."""
    return blocks["x"][..., None].astype(np.float32)
