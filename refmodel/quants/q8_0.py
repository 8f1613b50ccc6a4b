"""Q8_0: 32 weights, one scale, signed bytes. Source: dequantize_row_q8_0."""

import numpy as np

from ..arrays import F32, Blocks
from .integers import Activations, Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · code."""
    return plain(blocks["d"], blocks["qs"])


def quantize(x: F32) -> Activations:
    """Round tokens x [T, I] to blocks of 32: the value furthest from zero becomes ±127.

    Ties of a code are rounded to even; the factor is 127 / max and not 1 / d. The C version, `plainly`, differs in both.
    Source: quantize_row_q8_0 for AVX2.
    """
    blocks = x.reshape(len(x), -1, WEIGHTS)
    far = np.abs(blocks).max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.where(far != 0, np.float32(127) / far, np.float32(0))
        codes = np.rint(blocks * factor).astype(np.int8)
        d = scale(blocks).astype(np.float16).astype(np.float32)
    return Activations(d, codes)


def plainly(x: F32) -> F32:
    """Numbers near tokens x [T, I] whose codes, scales and sums by `quantize` are those that the C version gives x.

    That one takes 1 / d as the factor, and rounds ties of a code away from zero. Blocks that are not finite stay as they are.
    Source: quantize_row_q8_0_ref, quantize_row_q8_1_ref.
    """
    blocks = x.reshape(len(x), -1, WEIGHTS)
    far, d = np.abs(blocks).max(axis=-1, keepdims=True), scale(blocks)[..., None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exact = blocks * np.where(d != 0, np.float32(1) / d, np.float32(0))
        whole = np.trunc(exact)
        codes = whole + np.copysign(np.abs(exact - whole) >= np.float32(0.5), exact)
        near = np.where(np.abs(codes) == 127, np.copysign(far, codes), codes * d).astype(np.float32)
    return np.where(np.isfinite(far) & np.isfinite(exact), near, blocks).reshape(x.shape)


def scale(blocks: F32) -> F32:
    """max |x| / 127 of blocks [T, N, 32] -> [T, N], before it is rounded to a half float."""
    return np.abs(blocks).max(axis=-1) / np.float32(127)
