"""F16: IEEE half floats."""

import numpy as np

from ..arrays import F32, Blocks

BLOCK = np.dtype([("x", "<f2")])
WEIGHTS = 1


def floats(blocks: Blocks) -> F32:
    """Blocks [...] -> float32 [...]; exact."""
    return blocks["x"].astype(np.float32)
