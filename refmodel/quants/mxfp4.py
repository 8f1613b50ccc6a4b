"""MXFP4: 32 weights of 4-bit floats (E2M1) under one power of two (E8M0). Source: dequantize_row_mxfp4."""

import numpy as np

from ..arrays import Blocks
from .bits import nibbles
from .integers import Integers, plain

BLOCK = np.dtype([("e", "u1"), ("qs", "u1", 16)])
WEIGHTS = 32
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # twice the E2M1 values


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: 2^(e − 128) · VALUES[code]: half the E8M0 value, as the table holds doubles."""
    e = blocks["e"].astype(np.uint32)
    bits = np.where(e < 2, np.uint32(0x00200000) << e, (np.maximum(e, 1) - 1) << 23)  # below e = 2 it is subnormal
    return plain(bits.astype(np.uint32).view(np.float32), VALUES[nibbles(blocks["qs"])])
