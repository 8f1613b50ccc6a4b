"""Where the bytes of a few rows lie in a vector, so that one function takes a block apart for every kernel.

COLUMNS   eight rows whose 4-byte words are turned: lanes [words][8 rows][4 bytes]. A number per row is a lane: sums need no
          shuffles.
rows(n)   n rows one after the other: lanes [n][bytes]. A row's neighbours stay neighbours, as in a dot product of llama.cpp.

In both, arithmetic on bytes is the same line of code; only taking, cutting and joining differ, and are here.
"""

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import intrinsic

from .simd import I32, Vec, columns_of, joined, known, loaded_rows, shuffled
from .static import Static

COLUMNS = Static("columns")
ROW, FOUR_ROWS = Static(1), Static(4)


def count_of(layout):
    return 8 if layout.value == "columns" else layout.value


def outer_of(layout):
    """The rows that are the outermost axis of a vector's lanes."""
    return 1 if layout.value == "columns" else layout.value


@intrinsic(prefer_literal=True)
def take(typingctx, layout, n, data, at, stride):
    """n bytes (a multiple of 4) of each row, the first at data[at:], the rows `stride` bytes apart: u8 lanes."""
    size, R = known(n), count_of(layout)
    vec = Vec("u", 8, size * R)

    def emit(context, builder, sig, args):
        array, offset, step = args[2:]
        if layout.value != "columns":
            return joined(builder, loaded_rows(context, builder, data, (array, offset, step), Vec("u", 8, size), R))
        columns = []
        for start in range(0, size, 16):
            place = array, builder.add(offset, offset.type(start)), step
            if size - start >= 16:
                rows = loaded_rows(context, builder, data, place, Vec("u", 32, 4), 8)
                columns += columns_of(builder, [joined(builder, [rows[k], rows[k + 4]]) for k in range(4)])
                continue
            for word in range(start, size, 4):  # a short end: no byte behind it may be read
                place = array, builder.add(offset, offset.type(word)), step
                columns.append(joined(builder, loaded_rows(context, builder, data, place, Vec("u", 32, 1), 8)))
        return builder.bitcast(joined(builder, columns), vec.ir)

    return signature(vec, layout, n, data, types.intp, types.intp), emit


@intrinsic(prefer_literal=True)
def piece(typingctx, layout, v, count, k):
    """Of each row the k-th of `count` equal parts."""
    R, n = outer_of(layout), known(count)
    each = v.lanes // R
    lanes = [r * each + known(k) * each // n + i for r in range(R) for i in range(each // n)]
    emit = lambda context, builder, sig, args: shuffled(builder, args[1], args[1], lanes)
    return signature(Vec(v.kind, v.bits, len(lanes)), layout, v, count, k), emit


@intrinsic
def beside(typingctx, layout, a, b):
    """Of each row a's part, then b's."""
    R = outer_of(layout)
    each = a.lanes // R
    lanes = [side * a.lanes + r * each + i for r in range(R) for side in (0, 1) for i in range(each)]
    emit = lambda context, builder, sig, args: shuffled(builder, args[1], args[2], lanes)
    return signature(Vec(a.kind, a.bits, 2 * a.lanes), layout, a, b), emit


@intrinsic(prefer_literal=True)
def spread(typingctx, layout, v, n):
    """One lane a row, n times over for each row."""
    count = known(n)
    turned = layout.value == "columns"
    lanes = [r for _ in range(count) for r in range(v.lanes)] if turned else [r for r in range(v.lanes) for _ in range(count)]
    emit = lambda context, builder, sig, args: shuffled(builder, args[1], args[1], lanes)
    return signature(Vec(v.kind, v.bits, len(lanes)), layout, v, n), emit


@intrinsic(prefer_literal=True)
def ramp(typingctx, layout, n, step):
    """u32 lanes 0, step, 2 · step ... of n words, the same for each row."""
    R, count = count_of(layout), known(n)
    turned = layout.value == "columns"
    lanes = [known(step) * (i // R if turned else i % count) for i in range(R * count)]
    vec = Vec("u", 32, len(lanes))
    return signature(vec, layout, n, step), lambda context, builder, sig, args: ir.Constant(vec.ir, lanes)


@intrinsic
def number(typingctx, layout, vec, data, at, stride):
    """One number a row, of a vector's lane type, `stride` bytes apart."""
    R, lane = count_of(layout), vec.instance_type
    result = Vec(lane.kind, lane.bits, R)

    def emit(context, builder, sig, args):
        return joined(builder, loaded_rows(context, builder, data, tuple(args[2:]), Vec(lane.kind, lane.bits, 1), R))

    return signature(result, layout, vec, data, types.intp, types.intp), emit


@intrinsic
def each_twice(typingctx, v):
    """i8 lanes of columns [n][8 rows][4] -> i16 [4 n][8 rows][2]: every byte of a word is a word of its own, twice."""
    lanes = [32 * (g // 4) + 4 * r + g % 4 for g in range(v.lanes // 8) for r in range(8) for _ in range(2)]
    return signature(Vec("i", 16, len(lanes)), v), lambda context, builder, sig, args: widened(builder, args[0], lanes)


@intrinsic
def in_pairs(typingctx, v):
    """i8 lanes of columns [n][8 rows][4] -> i16 [2 n][8 rows][2]: every word becomes two."""
    lanes = [32 * (p // 2) + 4 * r + 2 * (p % 2) + i for p in range(v.lanes // 16) for r in range(8) for i in range(2)]
    return signature(Vec("i", 16, len(lanes)), v), lambda context, builder, sig, args: widened(builder, args[0], lanes)


def widened(builder, v, lanes):
    """Chosen bytes as i16, one register at a time: the byte goes into the upper half and is shifted down with its sign."""
    registers = []
    for start in range(0, len(lanes), 16):
        first = min(lanes[start : start + 16]) // 32 * 32  # they all lie in one register
        word = shuffled(builder, v, v, range(first, first + 32))
        bytes_ = [lane for chosen in lanes[start : start + 16] for lane in (32, chosen - first)]
        upper = shuffled(builder, word, ir.Constant(word.type, None), bytes_)
        halves = builder.bitcast(upper, ir.VectorType(ir.IntType(16), 16))
        registers.append(builder.ashr(halves, halves.type([8] * 16)))
    return joined(builder, registers)


__all__ = ["COLUMNS", "FOUR_ROWS", "I32", "ROW", "beside", "each_twice", "in_pairs", "number", "piece", "ramp", "spread", "take"]
