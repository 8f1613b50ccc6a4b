"""Q8_K: what activations become before a product with a type of 256-weight blocks; never stored in a file."""

import numpy as np

from ..arrays import F32
from .integers import Activations

WEIGHTS = 256


def quantize(x: F32) -> Activations:
    """x [T, I] -> blocks with a float32 scale; the value furthest from zero becomes −127 or rounds to 127.

    The scale is negative where that value is positive; of several equally far the first decides. Sums are of 16 codes each,
    [T, N, 16]. Source: quantize_row_q8_K_ref.
    """
    blocks = x.reshape(len(x), -1, WEIGHTS)
    furthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    return _scaled(blocks, furthest)


def quantize_by_four(x: F32) -> Activations:
    """The same for tokens that are interleaved by fours: of values equally far from zero the positive decides.

    Source: ggml_quantize_mat_q8_K_4x8 for AVX2.
    """
    blocks = x.reshape(len(x), -1, WEIGHTS)
    far = np.abs(blocks).max(axis=-1, keepdims=True)
    return _scaled(blocks, np.where(blocks.max(axis=-1, keepdims=True) == far, far, -far))


def _scaled(blocks: F32, furthest: F32) -> Activations:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.where(furthest != 0, np.float32(-127) / furthest, np.float32(0))
        d = np.where(furthest != 0, np.float32(1) / factor, np.float32(0))[..., 0]
        codes = np.minimum(np.rint(factor * blocks), 127).astype(np.int8)
    sums = codes.reshape(*codes.shape[:2], 16, 16).sum(axis=-1, dtype=np.int32)
    return Activations(d, codes, sums)
