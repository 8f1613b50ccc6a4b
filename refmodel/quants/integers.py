"""What a quantized block holds: whole numbers, and the floats that scale them."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arrays import F32, Blocks, NDInt


@dataclass(frozen=True)
class Integers:
    """Blocks [...] taken apart; W weights of a block in G groups: weight = (d · scale) · code − dmin · minimum.

    d       [...]     float32
    codes   [..., W]  int8
    scales  [..., G]  int16; 1 where a type has no scales of its own
    dmin    [...]     float32; [0] in types without a minimum
    minima  [..., G]  int16; [0] in types without a minimum
    """

    d: F32
    codes: NDInt
    scales: NDInt
    dmin: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    minima: NDInt = field(default_factory=lambda: np.empty(0, np.int16))

    def floats(self) -> F32:
        """The weights, float32 [..., W]; every product is rounded to float32 as ggml's dequantize_row functions round it."""
        scale = self.d[..., None] * self.scales.astype(np.float32)
        width = self.codes.shape[-1] // self.scales.shape[-1]
        weights = scale[..., None] * self.codes.reshape(*self.scales.shape, width).astype(np.float32)
        if self.dmin.size:
            weights -= (self.dmin[..., None] * self.minima.astype(np.float32))[..., None]
        return weights.reshape(self.codes.shape)


@dataclass(frozen=True)
class Activations:
    """Tokens [T, I] rounded to 8 bits, block by block, for a product of whole numbers: x is nearly d · code.

    d      [T, N]     float32
    codes  [T, N, W]  int8
    sums   of codes: [T, N] float32 of q8_1, [T, N, 16] int32 of q8_k, [0] of q8_0
    """

    d: F32
    codes: NDInt
    sums: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.float32))


class Quant(Protocol):
    """A module of quants/: the layout of one quantized type.

    BLOCK    the structured dtype of a block
    WEIGHTS  W, the weights of a block
    """

    BLOCK: np.dtype[np.void]
    WEIGHTS: int

    def integers(self, blocks: Blocks) -> Integers:
        """Blocks [...] taken apart into whole numbers and scales."""
        ...


class Floats(Protocol):
    """A module of quants/: the layout of a type whose weights are floats, one in a block.

    BLOCK    the structured dtype of a block
    WEIGHTS  1
    """

    BLOCK: np.dtype[np.void]
    WEIGHTS: int

    def floats(self, blocks: Blocks) -> F32:
        """Blocks [...] -> float32 [...]; exact."""
        ...


def plain(d: F32, codes: NDInt) -> Integers:
    """weight = d · code: d [...] of any float type, codes [..., W]; one group in a block."""
    return Integers(d.astype(np.float32), codes, np.ones((*d.shape, 1), np.int16))


def shifted(d: F32, m: F32, codes: NDInt) -> Integers:
    """weight = d · code + m, which has the bits of d · code − (−m) · 1: d and m [...], codes [..., W]; one group in a block."""
    one = np.ones((*d.shape, 1), np.int16)
    return Integers(d.astype(np.float32), codes, one, -m.astype(np.float32), one)
