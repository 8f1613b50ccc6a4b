"""Vectors made of numbers and of other vectors: splat, convert, shuffle, cut, join, repeat, look up."""

import operator

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import intrinsic, lower_builtin, type_callable

from .vectors import Vec, half_to_float, known, per_register, shuffled, splatted, target_has


@intrinsic
def splat(typingctx, vec, number):
    """The number in every lane of a vector of that type, or of the type of that vector."""
    result = vec.instance_type if isinstance(vec, types.TypeRef) else vec

    def emit(context, builder, sig, args):
        return splatted(builder, context.cast(builder, args[1], sig.args[1], result.scalar), result)

    return signature(result, vec, number), emit


@intrinsic
def bitcast(typingctx, vec, v):
    """The same bits, read as lanes of the vector's type."""
    lane = vec.instance_type
    result = Vec(lane.kind, lane.bits, v.lanes * v.bits // lane.bits)
    return signature(result, vec, v), lambda context, builder, sig, args: builder.bitcast(args[1], result.ir)


@intrinsic
def convert(typingctx, vec, v):
    """Each lane as a number of the vector type's lanes; to an integer towards zero; f16 -> f32 and f32 -> f64 exactly."""
    given, vec = vec, Vec(vec.instance_type.kind, vec.instance_type.bits, v.lanes)

    def emit(context, builder, sig, args):
        if v == vec:
            return args[1]
        if v.kind == "f" and vec.kind == "f":
            return half_to_float(context, builder, args[1], vec.ir) if v.bits == 16 else builder.fpext(args[1], vec.ir)
        if v.kind == "f":
            return builder.fptosi(args[1], vec.ir)
        if vec.kind == "f":
            return (builder.sitofp if v.kind == "i" else builder.uitofp)(args[1], vec.ir)
        if vec.bits < v.bits:
            return builder.trunc(args[1], vec.ir)
        return (builder.sext if v.kind == "i" else builder.zext)(args[1], vec.ir)

    return signature(vec, given, v), emit


def moves(in_numpy):
    """The operation that does with the lanes of vectors what a function does with the elements of flat arrays, in NumPy.

    in_numpy  its parameters are arrays for vectors, and the values of what is known when compiling: literals, Statics
    """

    def typed(*given):
        arrays, count, vectors = [], 0, []
        for k, kind in enumerate(given):
            if isinstance(kind, Vec):
                arrays.append(np.arange(count, count + kind.lanes))
                count, vectors = count + kind.lanes, [*vectors, k]
            else:
                arrays.append(known(kind))
        lanes, of = in_numpy(*arrays).ravel().tolist(), given[vectors[0]]
        emit = lambda context, builder, sig, args: shuffled(builder, args[vectors[0]], args[vectors[-1]], lanes)
        return signature(Vec(of.kind, of.bits, len(lanes)), *given), emit

    by_arity = [
        lambda typingctx, a: typed(a),
        lambda typingctx, a, b: typed(a, b),
        lambda typingctx, a, b, c: typed(a, b, c),
        lambda typingctx, a, b, c, d: typed(a, b, c, d),
    ]
    return intrinsic(prefer_literal=True)(by_arity[in_numpy.__code__.co_argcount - 1])


concat = moves(lambda a, b: np.concatenate([a, b]))
cut = moves(lambda v, count, k: v.reshape(count, -1)[k])
repeat = moves(lambda v, times: np.repeat(v, times))  # each lane several times over
repeat_every = moves(lambda v, lanes, times: np.repeat(v.reshape(-1, lanes), times, axis=0))  # groups of lanes several times over
tile = moves(lambda v, times: np.tile(v, times))  # the whole vector several times over
evens = moves(lambda v: v[0::2])
odds = moves(lambda v: v[1::2])


@intrinsic(prefer_literal=True)
def wide(typingctx, vec, times):
    """The vector type with `times` times the lanes; times is known when compiling."""
    vec_type = vec.instance_type
    many = types.TypeRef(Vec(vec_type.kind, vec_type.bits, vec_type.lanes * known(times)))
    return signature(many, vec, times), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic(prefer_literal=True)
def lookup(typingctx, v, table):
    """table[v] of u8 lanes below 16 (vpshufb); table is a global tuple of 16 numbers that fit i8."""
    entries, result = [entry.literal_value for entry in table], Vec("i", 8, v.lanes)

    def emit(context, builder, sig, args):
        if target_has(context, "avx2") and v.lanes >= 32:
            every = ir.Constant(result.ir, (entries * v.lanes)[: v.lanes])
            return per_register(builder, "llvm.x86.avx2.pshuf.b", "llvm.x86.avx512.pshuf.b.512", result.ir, every, args[0])
        found = ir.Constant(result.ir, [0] * v.lanes)
        for k, entry in enumerate(entries):
            chosen = builder.icmp_unsigned("==", args[0], v.ir([k] * v.lanes))
            found = builder.select(chosen, result.ir([entry] * v.lanes), found)
        return found

    return signature(result, v, table), emit


@intrinsic
def chosen(typingctx, table, which):
    """Choose within every four f32 lanes of table, by the two lowest bits of the u32 lane of `which` (vpermilps)."""

    def emit(context, builder, sig, args):
        v, ints = args[0].type, args[1].type
        if target_has(context, "avx2") and v.count % 8 == 0:
            name, wide = "llvm.x86.avx.vpermilvar.ps.256", "llvm.x86.avx512.vpermilvar.ps.512"
            return per_register(builder, name, wide, v, *args)
        low = builder.and_(args[1], ints([3] * v.count))
        found = ir.Constant(v, [0.0] * v.count)
        for k in range(4):
            lanes = shuffled(builder, args[0], args[0], [lane // 4 * 4 + k for lane in range(v.count)])
            found = builder.select(builder.icmp_unsigned("==", low, ints([k] * v.count)), lanes, found)
        return found

    return signature(table, table, which), emit


@intrinsic
def where_less(typingctx, a, b, x, y):
    """np.where(a < b, x, y), lane by lane; y where a or b is not a number."""

    def emit(context, builder, sig, args):
        less = {"f": builder.fcmp_ordered, "i": builder.icmp_signed, "u": builder.icmp_unsigned}[a.kind]
        return builder.select(less("<", args[0], args[1]), args[2], args[3])

    return signature(x, a, b, x, x), emit


@type_callable(operator.getitem)
def type_getitem(context):
    """v[k] has the type of a lane."""
    return lambda v, k: v.scalar if isinstance(v, Vec) and isinstance(k, types.Integer) else None


@lower_builtin(operator.getitem, Vec, types.Integer)
def getitem(context, builder, sig, args):
    """v[k] is a number."""
    return builder.extract_element(*args)
