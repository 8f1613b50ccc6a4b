"""Where the bytes of a few rows lie in a vector, so that one function takes a block apart for every kernel.

columns(n)  n rows whose 4-byte words are transposed: lanes [words][n rows][4 bytes]. A number per row is a lane: sums need no
            shuffles.
rows(n)     n rows one after the other: lanes [n][bytes]. A row's neighbours stay neighbours, as in a dot product of llama.cpp.

In both, arithmetic on bytes is the same line of code; only taking, cutting and joining differ, and are here.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.extending import intrinsic

from .compile_time import Static
from .dots import FACTOR
from .memory import columns_of, loaded_rows, prefetched
from .reshaping import moves
from .vectors import AHEAD, DOT4, I32, REGISTER, Vec, called, joined, known, pieces, shuffled, splatted


def columns(n):
    """The layout of n rows whose words are transposed, a Static."""
    return Static(("columns", n))


def rows(n):
    """The layout of n rows one after the other, a Static."""
    return Static(("rows", n))


REGISTER_OF_ROWS = columns(REGISTER // 32)  # a number per row is one register
SIXTEEN_ROWS, ROW, TWO_ROWS, FOUR_ROWS = columns(16), rows(1), rows(2), rows(4)


class Block(NamedTuple):
    """One block of each of a few rows, which have a layout in vectors; a parameter named `block` may be the layout alone.

    rows  uint8, contiguous: the first row's block starts at the byte `at`, the next row's `stride` bytes later
    """

    layout: Static
    rows: np.ndarray
    at: int
    stride: int


def count_of(block):
    """How many rows a layout has, or a block, or the type of either."""
    return known(block)[1]


def is_columns(block):
    """Whether the layout is one of `columns`."""
    return known(block)[0] == "columns"


def outer_of(block):
    """How many rows are the outermost axis of the lanes: all in a layout of rows, 1 in one of columns."""
    return 1 if is_columns(block) else count_of(block)


def loaded(context, builder, block, value, first, lane, lanes):
    """`lanes` lanes of each row from the byte `first` of its block on: a list of IR values."""
    _, rows, at, stride = cgutils.unpack_tuple(builder, value, 4)
    word = builder.add(at, first)
    return loaded_rows(context, builder, block.types[1], (rows, word, stride), Vec(lane.kind, lane.bits, lanes), count_of(block))


@intrinsic(prefer_literal=True)
def take(typingctx, block, n, at):
    """n bytes of each row as u8 lanes in the layout, from the byte `at` of its block on; n is a multiple of 4."""
    size, word, four = known(n), Vec("u", 32, 1), Vec("u", 8, known(n))

    def emit(context, builder, sig, args):
        value, first = args[0], context.cast(builder, args[2], at, types.intp)
        if not is_columns(block):
            return joined(builder, loaded(context, builder, block, value, first, four, size))
        columns = []
        for start in range(0, size, 16):
            if size - start >= 16:
                rows = loaded(context, builder, block, value, builder.add(first, first.type(start)), word, 4)
                columns += columns_of(builder, [joined(builder, rows[k::4]) for k in range(4)])
                continue
            for short in range(start, size, 4):  # a short end: no byte behind it may be read
                rows = loaded(context, builder, block, value, builder.add(first, first.type(short)), word, 1)
                columns.append(joined(builder, rows))
        return builder.bitcast(joined(builder, columns), sig.return_type.ir)

    return signature(Vec("u", 8, size * count_of(block)), block, n, at), emit


def _rows_of(layout, v):
    """Lanes with the rows of the layout as their first axis; one row, where the layout keeps rows as lanes."""
    kind, rows = layout
    return v.reshape(1 if kind == "columns" else rows, -1)


def _piece(layout, v, count, k):
    rows = _rows_of(layout, v)
    return rows.reshape(len(rows), count, -1)[:, k]


piece = moves(_piece)  # the k-th of `count` equal parts of each row
beside = moves(lambda layout, a, b: np.concatenate([_rows_of(layout, a), _rows_of(layout, b)], axis=1))  # a, then b, for each row
# lanes [rows][count][...] of a layout of rows as [count][rows][...]
outermost = moves(lambda layout, v, count: v.reshape(layout[1], count, -1).swapaxes(0, 1))


@intrinsic(prefer_literal=True)
def two_fields(typingctx, block, v, first, second, mask):
    """beside(block, (v >> first) & mask, (v >> second) & mask) of u8 lanes; a shift below zero is one to the left.

    No bit that stays may come from the next byte: so whole words can be transposed, each by its own number of places in one
    instruction where the target has it.
    """
    R, kept = outer_of(block), known(mask)
    each, vec = v.lanes // R, Vec(v.kind, v.bits, 2 * v.lanes)
    lanes = [r * each + i for r in range(R) for _ in range(2) for i in range(each)]

    def emit(context, builder, sig, args):
        words = Vec("u", 32, vec.lanes // 4)
        both = builder.bitcast(shuffled(builder, args[1], args[1], lanes), words.ir)
        left = [splatted(builder, builder.neg(context.cast(builder, args[k], sig.args[k], types.int32)), words) for k in (2, 3)]
        side = [k * words.lanes for _ in range(R) for k in range(2) for _ in range(each // 4)]
        transposed = called(builder, f"llvm.fshl.v{words.lanes}i32", words.ir, both, both, shuffled(builder, *left, side))
        return builder.bitcast(builder.and_(transposed, words.ir([0x01010101 * kept] * words.lanes)), vec.ir)

    return signature(vec, block, v, first, second, mask), emit


@intrinsic
def spread_bits(typingctx, block, v):
    """n bytes of each row as 8 · n bytes: byte k keeps only bit k of the row, at the bit's place in its own byte."""
    R = count_of(block)
    n = v.lanes // R
    lanes, bits = np.arange(v.lanes).reshape(R, n), np.arange(8 * n)  # [R, n], [8 n]
    if is_columns(block):
        lanes = np.arange(v.lanes).reshape(-1, R, 4).swapaxes(0, 1).reshape(R, n)
    order = np.stack([lanes[:, bits // 8], np.broadcast_to(1 << bits % 8, (R, 8 * n))])
    if is_columns(block):
        order = order.reshape(2, R, -1, 4).swapaxes(1, 2)
    chosen, masks = order.reshape(2, -1).tolist()
    result = Vec(v.kind, v.bits, 8 * v.lanes)

    def emit(context, builder, sig, args):
        return builder.and_(shuffled(builder, args[1], args[1], chosen), ir.Constant(result.ir, masks))

    return signature(result, block, v), emit


@intrinsic(prefer_literal=True)
def number(typingctx, block, vec, at):
    """One number of each row, from the byte `at` of its block on, in the lane type of `vec`."""
    lane = vec.instance_type

    def emit(context, builder, sig, args):
        first = context.cast(builder, args[2], at, types.intp)
        return joined(builder, loaded(context, builder, block, args[0], first, lane, 1))

    return signature(Vec(lane.kind, lane.bits, count_of(block)), block, vec, at), emit


@intrinsic(prefer_literal=True)
def fetch_rows(typingctx, block, first, count, size):
    """`fetch` `size` bytes after the block in `count` rows from row `first` on; count and size are known when compiling."""

    def emit(context, builder, sig, args):
        _, rows, at, stride = cgutils.unpack_tuple(builder, args[0], 4)
        for k in range(known(count)):
            row = builder.add(context.cast(builder, args[1], first, types.intp), at.type(k))
            start = builder.add(at, builder.mul(stride, row))
            for line in range(AHEAD, AHEAD + known(size), 64):
                prefetched(context, builder, block.types[1], rows, builder.add(start, at.type(line)))
        return context.get_dummy_value()

    return signature(types.void, block, first, count, size), emit


@intrinsic
def every_row(typingctx, block, vec, number):
    """The number in one lane for each row, in the lane type of `vec`."""
    lane = vec.instance_type
    result = Vec(lane.kind, lane.bits, count_of(block))
    emit = lambda context, builder, sig, args: splatted(builder, context.cast(builder, args[2], number, result.scalar), result)
    return signature(result, block, vec, number), emit


@intrinsic
def factors(typingctx, block, v):
    """Bytes of columns [n][rows][4] as what `dots.scaled` multiplies by: [4 n][rows], i32 or i16 twice."""
    R = count_of(block)
    n = v.lanes // R
    lanes = np.repeat(np.arange(v.lanes).reshape(-1, R, 4).swapaxes(1, 2), 2).tolist()

    def emit(context, builder, sig, args):
        if not DOT4:
            return widened(builder, args[1], lanes)
        words = builder.bitcast(args[1], ir.VectorType(I32, v.lanes // 4))
        numbers = []
        for four in pieces(builder, words, R):
            every = lambda number, four=four: four.type([number] * R)
            numbers += [builder.ashr(builder.shl(four, every(24 - 8 * k)), every(24)) for k in range(4)]
        return joined(builder, numbers)

    return signature(Vec("i", FACTOR.bits, FACTOR.lanes * n * R), block, v), emit


@intrinsic
def in_pairs(typingctx, block, v):
    """i8 lanes of columns [n][rows][4] -> i16 [2 n][rows][2]: every word becomes two."""
    R = count_of(block)
    lanes = np.arange(v.lanes).reshape(-1, R, 2, 2).swapaxes(1, 2).ravel().tolist()
    emit = lambda context, builder, sig, args: widened(builder, args[1], lanes)
    return signature(Vec("i", 16, len(lanes)), block, v), emit


def widened(builder, v, lanes):
    """Chosen i8 lanes of v as i16, one register at a time: the byte goes into the upper half and is shifted down with its sign."""
    registers = []
    for start in range(0, len(lanes), 16):
        first = min(lanes[start : start + 16]) // 32 * 32  # they all lie in one register
        word = shuffled(builder, v, v, range(first, first + 32))
        bytes_ = [lane for chosen in lanes[start : start + 16] for lane in (32, chosen - first)]
        upper = shuffled(builder, word, ir.Constant(word.type, None), bytes_)
        halves = builder.bitcast(upper, ir.VectorType(ir.IntType(16), 16))
        registers.append(builder.ashr(halves, halves.type([8] * 16)))
    return joined(builder, registers)
