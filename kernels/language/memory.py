"""Vectors and memory: loading from an array at a byte offset, storing, fetching ahead, and a counter that threads share."""

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import intrinsic

from .compile_time import inline
from .vectors import AHEAD, I8, I32, REGISTER, Vec, address, called, joined, known, pieces, shuffled


@intrinsic
def load(typingctx, vec, data, offset):
    """The vector whose bytes are at data[offset:]: a byte offset of any alignment."""
    vec = vec.instance_type

    def emit(context, builder, sig, args):
        value = builder.load(address(context, builder, data, args[1], args[2], vec.ir))
        value.align = 1
        return value

    return signature(vec, types.TypeRef(vec), data, types.intp), emit


@intrinsic(prefer_literal=True)
def load_repeated(typingctx, count, times, data, offset):
    """`count` words of 4 bytes, each `times` times (4, 8, 16 ...): i8 lanes [count][times][4]. Both are known when compiling."""
    n, copies = known(count), known(times)
    words_of_register = REGISTER // 32
    vec, each = Vec("i", 8, n * copies * 4), max(1, words_of_register // copies)

    def emit(context, builder, sig, args):
        registers = []
        for k in range(0, n, each):
            words = ir.VectorType(I32, min(each, n - k))
            word = builder.load(address(context, builder, data, args[2], builder.add(args[3], args[3].type(4 * k)), words))
            word.align = 1
            lanes = [lane for lane in range(words.count) for _ in range(min(copies, words_of_register))]
            registers += [shuffled(builder, word, word, lanes)] * max(1, copies // words_of_register)
        return builder.bitcast(joined(builder, registers), vec.ir)

    return signature(vec, count, times, data, types.intp), emit


@intrinsic(prefer_literal=True)
def load_rows(typingctx, vec, rows, data, offset, stride):
    """Equal parts of a vector from `rows` places, `stride` bytes apart: lanes [rows][...]; rows is known when compiling."""
    vec, count = vec.instance_type, known(rows)
    row = Vec(vec.kind, vec.bits, vec.lanes // count)

    def emit(context, builder, sig, args):
        return joined(builder, loaded_rows(context, builder, data, args[2:], row, count))

    return signature(vec, types.TypeRef(vec), rows, data, types.intp, types.intp), emit


def loaded_rows(context, builder, array_type, place, row, count):
    """`count` vectors of type `row`, one from each row of a place (array, offset, stride): a list of IR values."""
    array, offset, stride = place
    values = []
    for k in range(count):
        at = builder.add(offset, builder.mul(stride, stride.type(k)))
        values.append(builder.load(address(context, builder, array_type, array, at, row.ir)))
        values[-1].align = 1
    return values


@intrinsic(prefer_literal=True)
def store_rows(typingctx, rows, data, offset, stride, v):
    """The inverse of load_rows: equal parts of v to `rows` places, `stride` bytes apart; rows is known when compiling."""
    count = known(rows)

    def emit(context, builder, sig, args):
        array, offset, stride = args[1:4]
        for k, piece in enumerate(pieces(builder, args[4], v.lanes // count)):
            at = builder.add(offset, builder.mul(stride, stride.type(k)))
            builder.store(piece, address(context, builder, data, array, at, piece.type)).align = 1
        return context.get_dummy_value()

    return signature(types.void, rows, data, types.intp, types.intp, v), emit


def columns_of(builder, rows):
    """Transpose the 4x4 words in each 128 bits of four registers, as two rounds of unpack instructions."""
    a, b, c, d = rows
    n = a.type.count
    every = lambda four: [k + (n if of_b else 0) + i for k in range(0, n, 4) for of_b, i in four]
    zip_low, zip_high = every([(0, 0), (1, 0), (0, 1), (1, 1)]), every([(0, 2), (1, 2), (0, 3), (1, 3)])
    pairs_low, pairs_high = every([(0, 0), (0, 1), (1, 0), (1, 1)]), every([(0, 2), (0, 3), (1, 2), (1, 3)])
    zipped = [(shuffled(builder, a, b, lanes), shuffled(builder, c, d, lanes)) for lanes in (zip_low, zip_high)]
    return [shuffled(builder, *pair, lanes) for pair in zipped for lanes in (pairs_low, pairs_high)]


@intrinsic
def store(typingctx, data, offset, v):
    """Write the lanes of v to data[offset:]: a byte offset of any alignment."""

    def emit(context, builder, sig, args):
        builder.store(args[2], address(context, builder, data, args[0], args[1], v.ir)).align = 1
        return context.get_dummy_value()

    return signature(types.void, data, types.intp, v), emit


@intrinsic
def store_past_caches(typingctx, data, offset, v):
    """`store` past the caches; the address and the size of v are multiples of 32."""

    def emit(context, builder, sig, args):
        for k, register in enumerate(pieces(builder, args[2], 256 // v.bits)):
            at = builder.add(args[1], args[1].type(32 * k))
            instruction = builder.store(register, address(context, builder, data, args[0], at, register.type))
            instruction.align = 32
            instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return signature(types.void, data, types.intp, v), emit


def prefetched(context, builder, array_type, array, offset):
    """Ask the second-level cache for the line of array[offset], as IR."""
    place = address(context, builder, array_type, array, offset, I8)
    called(builder, "llvm.prefetch.p0", ir.VoidType(), place, I32(0), I32(2), I32(1))


@intrinsic
def prefetch(typingctx, data, offset):
    """Ask the second-level cache for the line of data[offset]. Nothing is read, and any offset is allowed."""

    def emit(context, builder, sig, args):
        prefetched(context, builder, data, *args)
        return context.get_dummy_value()

    return signature(types.void, data, types.intp), emit


@inline
def fetch(data, offset, size):
    """prefetch `size` bytes that are AHEAD of what is read now. Call it often with few bytes, or one fetch waits for another."""
    for line in range(0, size, 64):
        prefetch(data, offset + AHEAD + line)


@intrinsic
def fetch_add(typingctx, counter, amount):
    """Return counter[0] and add amount to it, atomically: how threads claim work."""

    def emit(context, builder, sig, args):
        data = context.make_array(counter)(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, args[1], "monotonic")

    return signature(types.int64, counter, types.int64), emit
