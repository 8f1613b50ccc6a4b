"""Arithmetic of vectors that Python has no operator for: fused products, rounding, sums over lanes in a stated order."""

import numpy as np
from llvmlite import ir
from numba.core.typing import signature
from numba.extending import intrinsic

from .compile_time import inline
from .reshaping import bitcast, splat, where_less
from .vectors import FLOATS, I32, Vec, called, f32, known, shuffled, target_has, u32


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once."""
    emit = lambda context, builder, sig, args: called(builder, f"llvm.fma.v{a.lanes}f{a.bits}", a.ir, *args)
    return signature(a, a, a, a), emit


@intrinsic
def rounded_to_half(typingctx, v):
    """f32 lanes rounded to the nearest half floats, ties to even, as f32 lanes: ieee.to_half."""

    def emit(context, builder, sig, args):
        floats, ints = args[0].type, ir.VectorType(I32, v.lanes)
        if target_has(context, "f16c"):
            return builder.fpext(builder.fptrunc(args[0], ir.VectorType(FLOATS[16], v.lanes)), floats)
        every = lambda number: ints([number] * v.lanes)
        bits = builder.bitcast(args[0], ints)
        size = builder.and_(bits, every(0x7FFFFFFF))
        half = floats([0.5] * v.lanes)  # below 2^-14 half floats are multiples of 2^-24, the last place of 0.5
        small = builder.bitcast(builder.fsub(builder.fadd(builder.bitcast(size, floats), half), half), ints)
        odd = builder.and_(builder.lshr(size, every(13)), every(1))
        large = builder.and_(builder.add(builder.add(size, every(0xFFF)), odd), every(0xFFFFE000))
        over = builder.icmp_unsigned(">=", large, every(0x47800000))
        large = builder.select(over, every(0x7F800000), large)
        result = builder.select(builder.icmp_unsigned("<", size, every(0x38800000)), small, large)
        result = builder.select(builder.icmp_unsigned(">", size, every(0x7F800000)), size, result)
        return builder.bitcast(builder.or_(result, builder.and_(bits, every(0x80000000))), floats)

    return signature(v, v), emit


@inline
def fma_of_halves(a, b, c):
    """a · b + c of f32 lanes that are half floats, rounded once to half floats, as f32 lanes. Twin of ops.ieee.fma_of_halves.

    The product is exact. Its sum with c is rounded to odd, so that the second rounding does not see a tie that is none.
    """
    product = a * b
    total = product + c
    part = total - product
    away = ((product - (total - part)) + (c - part)) * total  # what was lost, positive where it has the sign of the sum
    bits, none = bitcast(u32, total), splat(total, 0)
    odd = where_less(none, away, bits + 1, where_less(away, none, bits - 1, bits))
    return rounded_to_half(bitcast(f32, where_less(bits & 1, splat(bits, 1), odd, bits)))


@intrinsic
def largest(typingctx, v):
    """The largest of unsigned lanes."""
    emit = lambda context, builder, sig, args: called(
        builder, f"llvm.vector.reduce.umax.v{v.lanes}i{v.bits}", v.ir.element, args[0]
    )
    return signature(v.scalar, v), emit


def added(in_numpy):
    """The operation that cuts a vector into the rows of a matrix as a function does in NumPy, and adds them up from the first on.

    in_numpy  its parameters are a flat array, and a number that is known when compiling, or nothing
    """

    def typed(v, *numbers):
        rows = in_numpy(np.arange(v.lanes), *map(known, numbers))

        def emit(context, builder, sig, args):
            total, *rest = (shuffled(builder, args[0], args[0], row.tolist()) for row in rows)
            for more in rest:
                total = (builder.fadd if v.kind == "f" else builder.add)(total, more)
            return total

        return signature(Vec(v.kind, v.bits, rows.shape[1]), v, *numbers), emit

    by_arity = [lambda typingctx, v: typed(v), lambda typingctx, v, number: typed(v, number)]
    return intrinsic(prefer_literal=True)(by_arity[in_numpy.__code__.co_argcount - 1])


fold = added(lambda v, lanes: v.reshape(-1, lanes))
# in each run of `lanes` lanes the upper half is added to the lower
halves_added = added(lambda v, lanes: v.reshape(-1, 2, lanes // 2).swapaxes(0, 1).reshape(2, -1))
neighbours_added = added(lambda v: v.reshape(-1, 2).T)


@intrinsic(prefer_literal=True)
def hsums(typingctx, v, count):
    """The sum of each of `count` equal parts: the upper half is added to the lower until one lane is left (llama.cpp's order)."""
    result = Vec(v.kind, v.bits, known(count))

    def emit(context, builder, sig, args):
        sums, parts = args[0], np.arange(v.lanes).reshape(result.lanes, -1)
        while parts.shape[1] > 1:
            low, high = (shuffled(builder, sums, sums, half.ravel().tolist()) for half in np.split(parts, 2, axis=1))
            sums = (builder.fadd if v.kind == "f" else builder.add)(high, low)
            parts = np.arange(sums.type.count).reshape(result.lanes, -1)
        return sums

    return signature(result, v, count), emit


@inline
def hsum(v):
    """The sum of all lanes, in the order of `hsums`."""
    return hsums(v, 1)[0]


@inline
def four_registers(v):
    """Four registers of eight lanes as one, for each row: [rows][32] -> [rows][8], (first + third) + (second + fourth)."""
    return halves_added(halves_added(v, 32), 16)


@inline
def pairwise(v):
    """The sum of each eight lanes: [rows][8] -> [rows], as ops.ggml_floats.pairwise does it."""
    return neighbours_added(neighbours_added(halves_added(v, 8)))
