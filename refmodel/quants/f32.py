"""F32: plain floats."""

import numpy as np

from ..arrays import F32, Blocks

BLOCK = np.dtype([("x", "<f4")])
WEIGHTS = 1


def floats(blocks: Blocks) -> F32:
    """Blocks [...] -> float32 [...], as they are."""
    return blocks["x"].astype(np.float32)
