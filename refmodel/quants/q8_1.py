"""Q8_1: Q8_0 with the sum of each block, for the products of types with a minimum; never stored in a file."""

import numpy as np

from ..arrays import F32
from . import q8_0
from .integers import Activations

WEIGHTS = 32


def quantize(x: F32) -> Activations:
    """Round tokens x [T, I] to the blocks of Q8_0; sums [T, N] are d · Σ code with the unrounded d, as half floats.

    Source: quantize_row_q8_1 for AVX2.
    """
    plain = q8_0.quantize(x)
    total = plain.codes.sum(axis=-1, dtype=np.int32).astype(np.float32)
    with np.errstate(over="ignore"):
        sums = (q8_0.scale(x.reshape(len(x), -1, WEIGHTS)) * total).astype(np.float16).astype(np.float32)
    return Activations(plain.d, plain.codes, sums)
