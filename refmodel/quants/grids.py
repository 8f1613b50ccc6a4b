"""The tables of the IQ types: grids of eight or four small numbers, and signs of eight weights in seven bits.

The numbers are those of the gguf package, which holds them packed; a table is unpacked on first use.
"""

from functools import cache

import gguf.quants
import numpy as np

from ..arrays import F32, NDInt
from .mxfp4 import VALUES
from .tq1_0 import digits


@cache
def grid(name: str) -> NDInt:
    """The grid of a type, [entries, 8] or [entries, 4], int8. The tables are those of the gguf package."""
    of = getattr(gguf.quants, name)
    of.init_grid()
    return np.ascontiguousarray(of.grid.reshape(of.grid.shape[-2:]).astype(np.int8))


@cache
def signs() -> NDInt:
    """For seven bits the signs of eight weights, [128, 8] of 1 and -1: a bit for each of seven, and an even number of minuses."""
    seven = np.arange(128, dtype=np.uint8)[:, None] >> np.arange(7, dtype=np.uint8) & 1
    return minus(np.concatenate([seven, seven.sum(1, keepdims=True) & 1], axis=1))


def minus(bits: NDInt) -> NDInt:
    """The sign that a bit means, any shape: 1 -> -1, 0 -> 1."""
    return np.int8(1) - 2 * bits.astype(np.int8)


def each_bit(field: NDInt) -> NDInt:
    """[...] bytes -> [..., 8]: 1 or -1 for each bit, lowest first."""
    return minus(field[..., None] >> np.arange(8, dtype=np.uint8) & 1)


def odd(scales: NDInt) -> NDInt:
    """2 s + 1 of scales of any shape, as scales of Integers: the types with grids multiply by s + 1/2."""
    return 2 * scales.astype(np.int16) + 1


@cache
def tables(name: str) -> tuple[F32, F32]:
    """What a kernel looks up for a type: numbers and signs, float32, as kernels/types/grids.py describes them."""
    eights = each_bit(np.arange(256, dtype=np.uint8))
    numbers: NDInt = np.zeros((1, 8), np.int8)
    if name.startswith("IQ"):
        numbers = (8 if name.startswith("IQ1") else 1) * grid(name)
    elif name == "NVFP4":
        numbers = VALUES[None]
    elif name == "TQ1_0":
        numbers = digits(np.arange(256, dtype=np.uint8), 5).reshape(5, 256)
    by_seven = name in ("IQ2_XXS", "IQ2_XS", "IQ3_XXS")
    return numbers.astype(np.float32), (signs() if by_seven else eights).astype(np.float32)
