"""Arithmetic of vectors that Python has no operator for: fused products, rounding, sums over lanes in a stated order."""

from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import intrinsic

from .vectors import FLOATS, I32, Vec, called, joined, known, pieces, shuffled, target_has


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


@intrinsic
def fold(typingctx, vec, v):
    """v.reshape(-1, lanes of vec).sum(0), from left to right."""
    vec = vec.instance_type

    def emit(context, builder, sig, args):
        total, *rest = pieces(builder, args[1], vec.lanes)
        for piece in rest:
            total = (builder.fadd if vec.kind == "f" else builder.add)(total, piece)
        return total

    return signature(vec, types.TypeRef(vec), v), emit


@intrinsic(prefer_literal=True)
def repeat_every(typingctx, v, lanes, times):
    """np.repeat(v.reshape(-1, lanes), times, axis=0): groups of lanes several times over; both are known when compiling."""
    each, n = known(lanes), known(times)
    emit = lambda context, builder, sig, args: joined(builder, [g for g in pieces(builder, args[0], each) for _ in range(n)])
    return signature(Vec(v.kind, v.bits, v.lanes * n), v, lanes, times), emit


@intrinsic
def largest(typingctx, v):
    """The largest of unsigned lanes."""
    emit = lambda context, builder, sig, args: called(
        builder, f"llvm.vector.reduce.umax.v{v.lanes}i{v.bits}", v.ir.element, args[0]
    )
    return signature(v.scalar, v), emit


def halved(builder, v, kind):
    """The sum of all lanes, an IR scalar."""
    while v.type.count > 1:
        low, high = pieces(builder, v, v.type.count // 2)
        v = (builder.fadd if kind == "f" else builder.add)(high, low)
    return builder.extract_element(v, I32(0))


@intrinsic
def hsum(typingctx, v):
    """The sum of all lanes: the upper half is added to the lower until one lane is left (llama.cpp's order)."""
    return signature(v.scalar, v), lambda context, builder, sig, args: halved(builder, args[0], v.kind)


@intrinsic(prefer_literal=True)
def halves_added(typingctx, v, lanes):
    """v.reshape(-1, 2, lanes / 2).sum(1): in each run of `lanes` lanes the upper half is added to the lower."""
    half = known(lanes) // 2
    low = [k for k in range(v.lanes) if k % (2 * half) < half]

    def emit(context, builder, sig, args):
        parts = [shuffled(builder, args[0], args[0], [k + start for k in low]) for start in (0, half)]
        return (builder.fadd if v.kind == "f" else builder.add)(*parts)

    return signature(Vec(v.kind, v.bits, v.lanes // 2), v, lanes), emit


@intrinsic
def neighbours_added(typingctx, v):
    """v[0::2] + v[1::2]."""

    def emit(context, builder, sig, args):
        parts = [shuffled(builder, args[0], args[0], range(start, v.lanes, 2)) for start in (0, 1)]
        return (builder.fadd if v.kind == "f" else builder.add)(*parts)

    return signature(Vec(v.kind, v.bits, v.lanes // 2), v), emit


@intrinsic(prefer_literal=True)
def hsums(typingctx, v, count):
    """hsum of each of `count` equal parts; count is known when compiling."""
    result = Vec(v.kind, v.bits, known(count))

    def emit(context, builder, sig, args):
        sums, each = args[0], v.lanes // result.lanes
        while each > 1:
            each //= 2
            low = [2 * each * k + i for k in range(result.lanes) for i in range(each)]
            halves = [shuffled(builder, sums, sums, [lane + start for lane in low]) for start in (each, 0)]
            sums = (builder.fadd if v.kind == "f" else builder.add)(*halves)
        return sums

    return signature(result, v, count), emit
