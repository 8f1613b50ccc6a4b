"""TQ1_0: 256 weights of three values, five in a byte, one scale. Source: dequantize_row_tq1_0."""

import numpy as np

from ..arrays import Blocks, Bytes, NDInt
from .integers import Integers, plain

BLOCK = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights, taken apart: d · (digit − 1): 160 weights in 32 bytes, 80 in 16, 16 in 4."""
    qs, qh = blocks["qs"], blocks["qh"]
    return plain(blocks["d"], np.concatenate([digits(qs[..., :32], 5), digits(qs[..., 32:], 5), digits(qh, 4)], axis=-1))


def digits(packed: Bytes, count: int) -> NDInt:
    """The first `count` digits, minus 1, of bytes [..., n] that hold base-3 fractions of 256: the first of all, then the second."""
    moved = packed[..., None, :] * np.array([1, 3, 9, 27, 81], np.uint8)[:count, None]  # modulo 256: what is left of the fraction
    return (moved.astype(np.uint16) * 3 >> 8).astype(np.int8).reshape(*packed.shape[:-1], count * packed.shape[-1]) - 1
