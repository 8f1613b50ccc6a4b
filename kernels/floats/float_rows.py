"""Rows of floats for products with one token: 32 of each become float32 and meet the token in registers."""

import numpy as np

from ..language.arithmetic import fma
from ..language.compile_time import inline, maker, within
from ..language.memory import fetch, load, store
from ..language.reshaping import concat, cut, splat, tile
from ..language.row_layout import piece
from ..language.row_layout import rows as rows_of
from ..language.vectors import Vec
from ..types import bf16, f16, f32

FLOATS = {"F32": f32, "F16": f16, "BF16": bf16}
ROWS = 8  # at once
LAYOUT, f32x32 = rows_of(ROWS), Vec("f", 32, 32)


@inline
def further_32(weights, x, total):
    """The partial dot products after 32 more weights of each row: lanes [ROWS][32].

    weights  [ROWS][32]
    x        [32]  the numbers of one token
    total    the partial dot products before
    """
    return fma(weights, tile(x, ROWS), total)


@inline
def further_8(weights, x, total):
    """The same in lanes [ROWS][8]."""
    total = fma(piece(LAYOUT, weights, 4, 0), tile(cut(x, 4, 0), ROWS), total)
    total = fma(piece(LAYOUT, weights, 4, 1), tile(cut(x, 4, 1), ROWS), total)
    total = fma(piece(LAYOUT, weights, 4, 2), tile(cut(x, 4, 2), ROWS), total)
    return fma(piece(LAYOUT, weights, 4, 3), tile(cut(x, 4, 3), ROWS), total)


@maker
def one_token(kind, lanes):
    """The function (rows, at, x, blocks, sums) for the partial dot products of ROWS rows with one token.

    at      [ROWS]  byte offset of each row
    x       the token's numbers, float32
    blocks  how many blocks of weights are multiplied
    sums    [1, ROWS, lanes], overwritten
    """
    floats, size, running = FLOATS[kind].floats, FLOATS[kind].BLOCK, Vec("f", 32, ROWS * lanes)
    further = further_8 if lanes == 8 else further_32

    @inline
    def two_rows(rows, at, k, first):
        """32 weights of each of the rows k and k + 1, f32 lanes [2][32]; they begin `first` bytes after the row."""
        fetch(rows, at[k] + first, size)
        fetch(rows, at[k + 1] + first, size)
        return concat(floats(rows, at[k] + first), floats(rows, at[k + 1] + first))

    @within
    def all_blocks(rows, at, x, blocks, sums):
        total = splat(running, 0)
        for n in range(blocks):
            low = concat(two_rows(rows, at, np.int64(0), size * n), two_rows(rows, at, np.int64(2), size * n))
            high = concat(two_rows(rows, at, np.int64(4), size * n), two_rows(rows, at, np.int64(6), size * n))
            total = further(concat(low, high), load(f32x32, x, 128 * n), total)
        store(sums, 0, total)

    return all_blocks
