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
from numba.core.typing import signature
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable, typeof_impl

from .static import StaticType, inline

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
    """A number that is known when compiling: a literal, or a Static."""
    return argument.value if isinstance(argument, StaticType) else argument.literal_value


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


# ---- memory


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


@intrinsic
def load_columns(typingctx, vec, data, offset, stride):
    """Eight rows, `stride` bytes apart, transposed so that rows are lanes: [4-byte columns][8 rows][4 bytes]."""
    vec = vec.instance_type
    row = Vec("u", 32, 4)

    def emit(context, builder, sig, args):
        array, offset, stride = args[1:]
        columns = []
        for start in range(0, vec.lanes * vec.bits // 256, 4):
            place = array, builder.add(offset, offset.type(4 * start)), stride
            rows = loaded_rows(context, builder, data, place, row, 8)
            columns += columns_of(builder, [joined(builder, [rows[k], rows[k + 4]]) for k in range(4)])
        return builder.bitcast(joined(builder, columns), vec.ir)

    return signature(vec, types.TypeRef(vec), data, types.intp, types.intp), emit


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
def stream(typingctx, data, offset, v):
    """`store` past the caches; the address and the size of v are multiples of 32."""

    def emit(context, builder, sig, args):
        for k, register in enumerate(pieces(builder, args[2], 256 // v.bits)):
            at = builder.add(args[1], args[1].type(32 * k))
            instruction = builder.store(register, address(context, builder, data, args[0], at, register.type))
            instruction.align = 32
            instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return signature(types.void, data, types.intp, v), emit


@intrinsic
def prefetch(typingctx, data, offset):
    """Ask the second-level cache for the line of data[offset]. Nothing is read, and any offset is allowed."""

    def emit(context, builder, sig, args):
        place = address(context, builder, data, args[0], args[1], I8)
        called(builder, "llvm.prefetch.p0", ir.VoidType(), place, I32(0), I32(2), I32(1))
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


# ---- making and reshaping


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


@intrinsic(prefer_literal=True)
def shuffle(typingctx, a, b, lanes):
    """concatenate(a, b)[lanes]; lanes is a global tuple, known when the kernel is compiled."""
    chosen = [lane.literal_value for lane in lanes]
    result = Vec(a.kind, a.bits, len(chosen))
    emit = lambda context, builder, sig, args: shuffled(builder, args[0], args[1], chosen)
    return signature(result, a, b, lanes), emit


@intrinsic
def concat(typingctx, a, b):
    """a's lanes, then b's."""
    emit = lambda context, builder, sig, args: joined(builder, list(args))
    return signature(Vec(a.kind, a.bits, 2 * a.lanes), a, b), emit


@intrinsic(prefer_literal=True)
def part(typingctx, v, count, k):
    """v.reshape(count, -1)[k]; count and k are literals."""
    lanes = v.lanes // count.literal_value
    start = lanes * k.literal_value
    emit = lambda context, builder, sig, args: shuffled(builder, args[0], args[0], range(start, start + lanes))
    return signature(Vec(v.kind, v.bits, lanes), v, count, k), emit


@intrinsic(prefer_literal=True)
def repeat(typingctx, v, times):
    """np.repeat(v, times): each lane several times over; times is known when compiling."""
    count = known(times)
    emit = lambda context, builder, sig, args: shuffled(builder, args[0], args[0], [k // count for k in range(v.lanes * count)])
    return signature(Vec(v.kind, v.bits, v.lanes * count), v, times), emit


@intrinsic(prefer_literal=True)
def tile(typingctx, v, times):
    """np.tile(v, times): the whole vector several times over; times is known when compiling."""
    count = known(times)
    emit = lambda context, builder, sig, args: joined(builder, [args[0]] * count)
    return signature(Vec(v.kind, v.bits, v.lanes * count), v, times), emit


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


# ---- arithmetic


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


@intrinsic
def magnitude(typingctx, v):
    """abs(v) of signed lanes, as unsigned ones: -128 becomes 128."""
    emit = lambda context, builder, sig, args: called(builder, f"llvm.abs.v{v.lanes}i{v.bits}", v.ir, args[0], ir.IntType(1)(0))
    return signature(Vec("u", v.bits, v.lanes), v), emit


@intrinsic
def with_sign(typingctx, a, b):
    """a * sign(b) of i8 lanes (vpsignb)."""

    def emit(context, builder, sig, args):
        if target_has(context, "avx2"):
            return per_register(builder, "llvm.x86.avx2.psign.b", "", a.ir, *args)
        zero = a.ir([0] * a.lanes)
        signed = builder.select(builder.icmp_signed("<", args[1], zero), builder.sub(zero, args[0]), args[0])
        return builder.select(builder.icmp_signed("==", args[1], zero), zero, signed)

    return signature(a, a, a), emit


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
