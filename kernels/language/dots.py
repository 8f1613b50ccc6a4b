"""Sums of products of bytes, as the target forms them: four at once (vpdpbusd), or two in 16 bits (vpmaddubsw)."""

from llvmlite import ir
from numba.core.typing import signature
from numba.extending import intrinsic

from .vectors import DOT4, I32, REGISTER, Vec, called, joined, known, per_register, pieces, shuffled, target_has


def pair_products(builder, a, b, wide, widen_a):
    """a[0::2] * b[0::2] + a[1::2] * b[1::2] in the lanes of `wide`."""
    products = []
    for start in (0, 1):
        half = range(start, a.type.count, 2)
        x, y = shuffled(builder, a, a, half), shuffled(builder, b, b, half)
        products.append(builder.mul(widen_a(x, wide), builder.sext(y, wide)))
    return builder.add(*products)


def pairs_u8i8(context, builder, a, b):
    """dot2_u8i8 of IR values."""
    lanes = a.type.count // 2
    result = ir.VectorType(ir.IntType(16), lanes)
    if target_has(context, "avx2") and lanes >= 16:
        return per_register(builder, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx512.pmaddubs.w.512", result, a, b)
    wide = ir.VectorType(I32, lanes)
    exact = pair_products(builder, a, b, wide, builder.zext)
    clipped = called(builder, f"llvm.smin.v{lanes}i32", wide, exact, wide([32767] * lanes))
    clipped = called(builder, f"llvm.smax.v{lanes}i32", wide, clipped, wide([-32768] * lanes))
    return builder.trunc(clipped, result)


def pairs_i16(context, builder, a, b):
    """dot2_i16 of IR values."""
    result = ir.VectorType(I32, a.type.count // 2)
    if target_has(context, "avx2") and result.count >= 8:
        return per_register(builder, "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx512.pmaddw.d.512", result, a, b)
    return pair_products(builder, a, b, result, builder.sext)


def pairs_i8(context, builder, a, b, signed):
    """dot2_i8 of IR values."""
    if signed:
        zero = a.type([0] * a.type.count)
        if target_has(context, "avx2") and not target_has(context, "avx512bw") and a.type.count >= 32:
            b = per_register(builder, "llvm.x86.avx2.psign.b", "", b.type, b, a)  # AVX-512 has no such instruction, but masks
        else:
            b = builder.select(builder.icmp_signed("<", a, zero), builder.sub(zero, b), b)
        a = called(builder, f"llvm.abs.v{a.type.count}i8", a.type, a, ir.IntType(1)(0))
    return pairs_u8i8(context, builder, a, b)


@intrinsic
def dot2_i8(typingctx, a, b):
    """dot2_u8i8 where a may be signed too, if |a| and |b| are at most 127: then |a| is multiplied by b · sign(a)."""
    emit = lambda context, builder, sig, args: pairs_i8(context, builder, *args, a.kind == "i")
    return signature(Vec("i", 16, a.lanes // 2), a, b), emit


@intrinsic
def dot2_u8i8(typingctx, a, b):
    """a[0::2] * b[0::2] + a[1::2] * b[1::2] of u8 and i8 lanes, clipped to i16 (vpmaddubsw)."""
    emit = lambda context, builder, sig, args: pairs_u8i8(context, builder, *args)
    return signature(Vec("i", 16, a.lanes // 2), a, b), emit


@intrinsic
def dot2_i16(typingctx, a, b):
    """a[0::2] * b[0::2] + a[1::2] * b[1::2] of i16 lanes, in i32 (vpmaddwd)."""
    emit = lambda context, builder, sig, args: pairs_i16(context, builder, *args)
    return signature(Vec("i", 32, a.lanes // 2), a, b), emit


# ---- sums of products of bytes, as the target forms them: four at once in i32 (vpdpbusd), or two in i16 (vpmaddubsw)


FACTOR = Vec("i", 32, 1) if DOT4 else Vec("i", 16, 2)  # what one row's sum is multiplied by: the number, or the number twice


def fours_u8i8(builder, sums, a, b):
    """sums + the sums of four products, exactly: i32."""
    words = [builder.bitcast(x, ir.VectorType(I32, sums.type.count)) for x in (a, b)]
    bits = min(REGISTER, 32 * sums.type.count)
    cut = [pieces(builder, x, bits // 32) for x in (sums, *words)]
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    return joined(builder, [called(builder, name, ir.VectorType(I32, bits // 32), *row) for row in zip(*cut)])


@intrinsic(prefer_literal=True)
def no_sums(typingctx, lanes):
    """Zeros, to which `dots_onto` adds; one lane for each row."""
    result = Vec("i", FACTOR.bits, FACTOR.lanes * known(lanes))
    return signature(result, lanes), lambda context, builder, sig, args: ir.Constant(result.ir, None)


@intrinsic(prefer_literal=True)
def dots_onto(typingctx, sums, a, b, groups):
    """sums [groups][rows] + the sums over words of a · b, bytes [groups][words][rows][4]; groups is known when compiling.

    Where sums have 16 bits, they must not leave them. Where they have 32, a has no sign.
    """
    n = known(groups)

    def emit(context, builder, sig, args):
        width = args[0].type.count // n * sums.bits // 8  # bytes of a word of all rows
        words = a.lanes // n // width
        results = []
        for g, total in enumerate(pieces(builder, args[0], args[0].type.count // n)):
            for k in range(g * words, g * words + words):
                x, y = (shuffled(builder, v, v, range(k * width, (k + 1) * width)) for v in args[1:3])
                if DOT4:
                    total = fours_u8i8(builder, total, x, y)
                else:
                    total = builder.add(total, pairs_i8(context, builder, x, y, a.kind == "i"))
            results.append(total)
        return joined(builder, results)

    return signature(sums, sums, a, b, groups), emit


@intrinsic
def scaled(typingctx, sums, factors):
    """Each row's sum times its factor, i32 lanes."""
    result = Vec("i", 32, sums.lanes * sums.bits // 32)

    def emit(context, builder, sig, args):
        return builder.mul(*args) if DOT4 else pairs_i16(context, builder, *args)

    return signature(result, sums, factors), emit
