"""BF16: the upper half of an F32."""

import numpy as np

from ..arrays import F32, Blocks

BLOCK = np.dtype([("x", "<u2")])
WEIGHTS = 1


def floats(blocks: Blocks) -> F32:
    """Blocks [...] -> float32 [...]; exact."""
    return (blocks["x"].astype(np.uint32) << 16).view(np.float32)
