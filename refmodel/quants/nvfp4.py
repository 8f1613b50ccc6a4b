"""NVFP4: 64 weights of 4-bit floats (E2M1) in 4 groups of 16, each with an 8-bit float (E4M3, no sign) as its scale.

Source: dequantize_row_nvfp4 and ggml_ue4m3_to_fp32.
"""

import numpy as np

from ..arrays import Blocks
from .bits import nibbles
from .integers import Integers
from .mxfp4 import VALUES

BLOCK = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])
WEIGHTS = 64
UNIT = np.float32(2**-11)  # what all scales are multiples of; half of it is for VALUES, which holds doubles


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 64 weights in 4 groups, taken apart: (2^-11 · scale) · VALUES[code].

    A scale is (8 + m) 2^e, below e = 1 it is 2 m. 0x7F, NaN in E4M3, counts as zero.
    """
    m, e = (blocks["d"] & 7).astype(np.int32), blocks["d"].astype(np.int32) >> 3 & 15
    scales = np.where(blocks["d"] == 0x7F, 0, np.where(e, (8 + m) << e, 2 * m))
    codes = VALUES[nibbles(blocks["qs"].reshape(*blocks.shape, 4, 8))].reshape(*blocks.shape, 64)
    return Integers(np.full(blocks.shape, UNIT), codes, scales)
