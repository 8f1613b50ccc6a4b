"""MXFP4: 32 weights of 4-bit floats (E2M1) under one power of two (E8M0). Source: dequantize_row_mxfp4."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import nibbles

BLOCK = np.dtype([("e", "u1"), ("qs", "u1", 16)])
WEIGHTS = 32
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)  # twice the E2M1 values


def dequantize(blocks: Blocks) -> F32:
    """2^(e − 128) · VALUES[code]; blocks [...] -> [..., 32]. Half the E8M0 value, as the table holds doubles."""
    e = blocks["e"].astype(np.uint32)
    bits = np.where(e < 2, np.uint32(0x00200000) << e, (np.maximum(e, 1) - 1) << 23)  # below e = 2 it is subnormal
    return bits.astype(np.uint32).view(np.float32)[..., None] * VALUES[nibbles(blocks["qs"])]
