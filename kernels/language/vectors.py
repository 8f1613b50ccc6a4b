"""A small vector language for Numba kernels.

`Vec("u", 8, 32)` is a Numba type: 32 unsigned bytes held in one LLVM vector. Inside an `@njit` function such values are
loaded from a one-dimensional array at a byte offset, combined lane by lane with Python's operators, and stored again.
A type may be wider than a register: `Vec("f", 32, 64)` is eight AVX registers, and every operation on it is eight
instructions. So one line of a kernel is unrolled by construction, and no loop over registers is written.

Integers wrap around; `u` lanes shift and widen without sign, `i` lanes with it; `f` lanes round to nearest even.
Instructions without an LLVM counterpart are named directly when Numba's target has them; otherwise the same lanes
come from generic IR, so that every target computes the same bits.
"""

import operator
from functools import cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import lower_builtin, models, register_model, type_callable, typeof_impl

from .compile_time import Static, StaticType

I8, I32 = ir.IntType(8), ir.IntType(32)
AHEAD = 1024  # bytes from what is read to what is fetched, in each of the streams of a core
FLOATS = {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}


class Vec(types.Type):
    """`lanes` numbers of one kind: "u" unsigned, "i" signed, "f" floating point, of `bits` bits each."""

    def __init__(self, kind, bits, lanes):
        self.kind, self.bits, self.lanes = kind, bits, lanes
        super().__init__(name=f"{kind}{bits}x{lanes}")

    @property
    def ir(self):
        """The LLVM vector type."""
        return ir.VectorType(FLOATS[self.bits] if self.kind == "f" else ir.IntType(self.bits), self.lanes)

    @property
    def scalar(self):
        """The Numba type of one lane."""
        return getattr(types, {"u": "uint", "i": "int", "f": "float"}[self.kind] + str(self.bits))


@register_model(Vec)
class VecModel(models.PrimitiveModel):
    """How Numba stores a Vec: as the LLVM vector itself."""

    def __init__(self, manager, vec):
        super().__init__(manager, vec, vec.ir)


@typeof_impl.register(Vec)
def typeof_vec(vec, context):
    """A Vec that a kernel names is a type there."""
    return types.TypeRef(vec)


# where only the type of a lane matters
u8, u16, u32 = Vec("u", 8, 1), Vec("u", 16, 1), Vec("u", 32, 1)
i8, i16, i32 = Vec("i", 8, 1), Vec("i", 16, 1), Vec("i", 32, 1)
f16, f32 = Vec("f", 16, 1), Vec("f", 32, 1)


# ---- code generation helpers: they build IR, they are not called from kernels


def known(argument):
    """What is known when compiling: a literal, a Static, or the Static that begins a tuple. Also of a Static itself."""
    if isinstance(argument, types.BaseTuple):
        return known(argument.types[0])
    return argument.value if isinstance(argument, StaticType | Static) else argument.literal_value


def target_has(context, feature):
    """Whether the CPU that Numba compiles for (not necessarily this one) has the feature."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


@cache
def target_is(feature):
    """The same outside of kernels, where sizes are chosen that change no bits."""
    return target_has(cpu_target.target_context, feature)


# instructions that multiply bytes and add four products to 32 bits at once, and the bits of a register that they work on
WIDE_DOT4 = target_is("avx512vnni")
DOT4 = WIDE_DOT4 or target_is("avxvnni")
REGISTER = 512 if WIDE_DOT4 else 256


def shuffled(builder, a, b, lanes):
    """concatenate(a, b)[lanes], as IR."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def joined(builder, parts):
    """Concatenate vectors of one type, pairwise."""
    if len(parts) & (len(parts) - 1):  # not a power of two: the first half as it is
        half = 1 << (len(parts).bit_length() - 1)
        low, high = joined(builder, parts[:half]), joined(builder, parts[half:])
        n, wide = low.type.count, range(low.type.count)
        padded = shuffled(builder, high, high, [k if k < high.type.count else 0 for k in wide])
        return shuffled(builder, low, padded, [*wide, *range(n, n + high.type.count)])
    while len(parts) > 1:
        both = range(2 * parts[0].type.count)
        parts = [shuffled(builder, a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def pieces(builder, v, lanes):
    """Cut a vector into vectors of `lanes` lanes."""
    return [shuffled(builder, v, v, range(k, k + lanes)) for k in range(0, v.type.count, lanes)]


def splatted(builder, scalar, vec):
    """A scalar in every lane of a vector of type `vec`, as IR."""
    one = builder.insert_element(ir.Constant(vec.ir, ir.Undefined), scalar, ir.Constant(I32, 0))
    return shuffled(builder, one, one, [0] * vec.lanes)


def called(builder, name, result, *args):
    """Call an LLVM intrinsic function by name."""
    function_type = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def per_register(builder, name, wide, result, *args):
    """Call the intrinsic of an AVX2 instruction once for every 256 bits of the arguments.

    name  of the intrinsic on 256 bits
    wide  of the one on 512 bits, used where the target has such registers; or None
    """
    width = lambda kind: getattr(kind.element, "width", 32)  # a float has none
    whole = min(a.type.count * width(a.type) for a in args)
    bits = 512 if wide and REGISTER == 512 and whole % 512 == 0 else 256
    cut = [pieces(builder, a, bits // width(a.type)) for a in args]
    part = ir.VectorType(result.element, bits // width(result))
    return joined(builder, [called(builder, wide if bits == 512 else name, part, *row) for row in zip(*cut)])


def address(context, builder, array_type, array, offset, pointee):
    """A pointer to `pointee` at the byte `offset` of an array, as IR."""
    start = builder.bitcast(context.make_array(array_type)(context, builder, array).data, I8.as_pointer())
    return builder.bitcast(builder.gep(start, [offset]), pointee.as_pointer())


def half_to_float(context, builder, half, floats):
    """f16 -> f32, exactly; without the F16C instruction by integer arithmetic, where an infinity or NaN keeps its exponent."""
    if target_has(context, "f16c"):
        return builder.fpext(half, floats)
    ints = ir.VectorType(I32, floats.count)
    every = lambda number: ints([number] * ints.count)
    bits = builder.zext(builder.bitcast(half, ir.VectorType(ir.IntType(16), floats.count)), ints)
    shifted = lambda mask, by: builder.shl(builder.and_(bits, every(mask)), every(by))
    moved = builder.fmul(builder.bitcast(shifted(0x7FFF, 13), floats), floats([2.0**112] * ints.count))
    special = builder.icmp_unsigned(">=", shifted(0x7FFF, 13), every(0x0F800000))
    magnitude = builder.select(special, builder.or_(shifted(0x7FFF, 13), every(0x7F800000)), builder.bitcast(moved, ints))
    return builder.bitcast(builder.or_(magnitude, shifted(0x8000, 16)), floats)


# ---- operators: vector with vector of the same type, or vector with number


def register_operator(op, of_ints, of_floats, of_signed):
    """Define a Python operator for vectors; the names are of the builder's methods, None where there is no such operation."""

    def emit(context, builder, sig, args):
        vec, other = sig.args
        a, b = args
        if not isinstance(other, Vec):
            b = splatted(builder, context.cast(builder, b, other, vec.scalar), vec)
        name = {"u": of_ints, "i": of_signed or of_ints, "f": of_floats}[vec.kind]
        return getattr(builder, name)(a, b)

    @type_callable(op)
    def type_operator(context):
        def typer(a, b):
            fits = isinstance(a, Vec) and (b == a or isinstance(b, types.Number))
            return a if fits and {"f": of_floats}.get(a.kind, of_ints) else None

        return typer

    lower_builtin(op, Vec, Vec)(emit)
    lower_builtin(op, Vec, types.Number)(emit)


for name, of_ints, of_floats, of_signed in [
    ("add", "add", "fadd", None),
    ("sub", "sub", "fsub", None),
    ("mul", "mul", "fmul", None),
    ("truediv", None, "fdiv", None),
    ("and_", "and_", None, None),
    ("or_", "or_", None, None),
    ("xor", "xor", None, None),
    ("lshift", "shl", None, None),
    ("rshift", "lshr", None, "ashr"),
]:
    for op in (name, "i" + name.rstrip("_")):
        register_operator(getattr(operator, op), of_ints, of_floats, of_signed)
