"""Q8_K: what activations become before a product with a type of 256-weight blocks; never stored in a file."""

import numpy as np

from ..arrays import F32
from .integers import Activations

WEIGHTS = 256


def quantize(x: F32) -> Activations:
    """Round tokens x [T, I] to blocks of 256 with a float32 scale: the value furthest from zero becomes −127 or rounds to 127.

    The scale is negative where that value is positive; of several equally far the first decides (in llama.cpp's interleaved
    form of four tokens the positive one: then codes and scale both change sign, and no product changes). Sums are of 16 codes
    each, [T, N, 16]. Source: quantize_row_q8_K_ref, ggml_quantize_mat_q8_K_4x8.
    """
    blocks = x.reshape(len(x), -1, WEIGHTS)
    furthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.where(furthest != 0, np.float32(-127) / furthest, np.float32(0))
        d = np.where(furthest != 0, np.float32(1) / factor, np.float32(0))[..., 0]
        codes = np.minimum(np.rint(factor * blocks), 127).astype(np.int8)
    sums = codes.reshape(*codes.shape[:2], 16, 16).sum(axis=-1, dtype=np.int32)
    return Activations(d, codes, sums)
