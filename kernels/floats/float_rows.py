"""Rows of floats for products with one token: 32 of each become float32 and meet the token in registers."""

from numba.extending import overload

from ..language.arithmetic import fma
from ..language.compile_time import INLINE, WITHIN, for_kernels
from ..language.memory import fetch, load, store
from ..language.reshaping import concat, part, splat, tile
from ..language.row_layout import piece
from ..language.row_layout import rows as rows_of
from ..language.vectors import Vec
from ..types import bf16, f16, f32

FLOATS = {"F32": f32, "F16": f16, "BF16": bf16}
ROWS = 8  # at once
LAYOUT, f32x32 = rows_of(ROWS), Vec("f", 32, 32)


@for_kernels
def two_rows(kind, rows, at, k, first):
    """32 weights of each of the rows k and k + 1, f32 lanes [2][32].

    at     byte offset of each row
    first  how many bytes after it the weights begin
    """


@overload(two_rows, jit_options=INLINE)
def _two_rows(kind, rows, at, k, first):
    floats, size = FLOATS[kind.value].floats, FLOATS[kind.value].BLOCK

    def body(kind, rows, at, k, first):
        fetch(rows, at[k] + first, size)
        fetch(rows, at[k + 1] + first, size)
        return concat(floats(rows, at[k] + first), floats(rows, at[k + 1] + first))

    return body


@for_kernels
def further(weights, x, total):
    """The partial dot products after 32 more weights of each row: lanes [ROWS][8 or 32].

    weights  [ROWS][32]
    x        [32]  the numbers of one token
    total    the partial dot products before
    """


@overload(further, jit_options=INLINE)
def _further(weights, x, total):
    def lanes_of_32(weights, x, total):
        return fma(weights, tile(x, ROWS), total)

    def lanes_of_8(weights, x, total):
        total = fma(piece(LAYOUT, weights, 4, 0), tile(part(x, 4, 0), ROWS), total)
        total = fma(piece(LAYOUT, weights, 4, 1), tile(part(x, 4, 1), ROWS), total)
        total = fma(piece(LAYOUT, weights, 4, 2), tile(part(x, 4, 2), ROWS), total)
        return fma(piece(LAYOUT, weights, 4, 3), tile(part(x, 4, 3), ROWS), total)

    return lanes_of_8 if total.lanes == 8 * ROWS else lanes_of_32


@for_kernels
def one_token(kind, lanes, rows, at, x, blocks, sums):
    """The partial dot products of ROWS rows with one token: sums [1, ROWS, lanes], overwritten.

    at      [ROWS]  byte offset of each row
    x       the token's numbers, float32
    blocks  how many blocks of weights are multiplied
    """


@overload(one_token, jit_options=WITHIN)
def _one_token(kind, lanes, rows, at, x, blocks, sums):
    running, size = Vec("f", 32, ROWS * lanes.value), FLOATS[kind.value].BLOCK

    def body(kind, lanes, rows, at, x, blocks, sums):
        total = splat(running, 0)
        for n in range(blocks):
            low = concat(two_rows(kind, rows, at, 0, size * n), two_rows(kind, rows, at, 2, size * n))
            high = concat(two_rows(kind, rows, at, 4, size * n), two_rows(kind, rows, at, 6, size * n))
            total = further(concat(low, high), load(f32x32, x, 128 * n), total)
        store(sums, 0, total)

    return body
