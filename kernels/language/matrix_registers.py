"""Matrix registers (AMX): eight, of 16 rows of 64 bytes, that the processor multiplies with one another.

A product adds a · b to c: a has 16 rows of k signed bytes, b their partners in 16 columns, [k / 4][16][4], and c is i32 [16][16].
Registers 0 to 3 are c, 4 and 5 are a, 6 and 7 are b. Where the target has none, the same functions keep them in `room`, ROOM bytes
of scratch, with the same numbers.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.extending import intrinsic

from .arithmetic import neighbours_added
from .compile_time import inline
from .dots import dot2_i16
from .memory import load, load_repeated, store
from .reshaping import convert, splat, wide
from .vectors import I8, Vec, address, called, i16, known, target_is

TARGET_HAS_THEM = target_is("amx-int8")  # whether a process may use them is for the operating system to say
ROOM = 8 * 1024
I64 = ir.IntType(64)
i8x64, u8x64, i16x64, i32x16, u8x4 = Vec("i", 8, 64), Vec("u", 8, 64), Vec("i", 16, 64), Vec("i", 32, 16), Vec("u", 8, 4)


# ---- as instructions


def done(context, builder, name, *args):
    """The instruction of that name, as IR."""
    called(builder, f"llvm.x86.{name}", ir.VoidType(), *args)
    return context.get_dummy_value()


def moved(context, builder, name, register, array_type, array, offset, stride):
    """An instruction that moves a register."""
    return done(context, builder, name, I8(known(register)), address(context, builder, array_type, array, offset, I8), stride)


@intrinsic(prefer_literal=True)
def _set_up(typingctx, room, k):
    columns, rows = [64] * 4 + [known(k)] * 2 + [64] * 2, [16] * 6 + [known(k) // 4] * 2
    shapes = [1, *[0] * 15, *(byte for size in columns for byte in (size, 0)), *[0] * 16, *rows, *[0] * 8]

    def emit(context, builder, sig, args):
        data = cgutils.global_constant(builder, "matrix_registers", ir.Constant(ir.ArrayType(I8, 64), shapes))
        done(context, builder, "sttilecfg", address(context, builder, room, args[0], I64(0), I8))
        return done(context, builder, "ldtilecfg", builder.bitcast(data, I8.as_pointer()))

    return signature(types.void, room, k), emit


@intrinsic
def _set_back(typingctx, room):
    def emit(context, builder, sig, args):
        return done(context, builder, "ldtilecfg", address(context, builder, room, args[0], I64(0), I8))

    return signature(types.void, room), emit


@intrinsic(prefer_literal=True)
def _clear(typingctx, room, c):
    emit = lambda context, builder, sig, args: done(context, builder, "tilezero", I8(known(c)))
    return signature(types.void, room, c), emit


@intrinsic(prefer_literal=True)
def _load_left(typingctx, room, k, a, data, offset, stride):
    emit = lambda context, builder, sig, args: moved(context, builder, "tileloadd64", a, data, *args[3:])
    return signature(types.void, room, k, a, data, types.intp, types.intp), emit


@intrinsic(prefer_literal=True)
def _load_right(typingctx, room, k, b, data, offset):
    emit = lambda context, builder, sig, args: moved(context, builder, "tileloadd64", b, data, *args[3:], I64(64))
    return signature(types.void, room, k, b, data, types.intp), emit


@intrinsic(prefer_literal=True)
def _store_sums(typingctx, room, c, data, offset):
    emit = lambda context, builder, sig, args: moved(context, builder, "tilestored64", c, data, *args[2:], I64(64))
    return signature(types.void, room, c, data, types.intp), emit


@intrinsic(prefer_literal=True)
def _add_products(typingctx, room, lane, c, a, b):
    name = {"i": "tdpbssd", "u": "tdpbsud"}[lane.instance_type.kind]
    emit = lambda context, builder, sig, args: done(context, builder, name, *(I8(known(n)) for n in (c, a, b)))
    return signature(types.void, room, lane, c, a, b), emit


# ---- in memory


@inline
def set_up_in_memory(room, k):
    """Prepare for rows of k bytes; k is known when compiling. What another program of this thread has prepared is kept."""
    room[:ROOM] = 0


@inline
def set_back_in_memory(room):
    """As it was before `set_up`: llama.cpp prepares a thread once, and ends if that is lost."""


@inline
def clear_in_memory(room, c):
    """Zeros in register c."""
    for i in range(1024):
        room[1024 * c + i] = 0


@inline
def load_left_in_memory(room, k, a, data, offset, stride):
    """Register a: 16 rows of k bytes, `stride` bytes apart, the first at data[offset]."""
    for r in range(16):
        for i in range(0, k, 4):
            store(room, 1024 * a + 64 * r + i, load(u8x4, data, offset + stride * r + i))


@inline
def load_right_in_memory(room, k, b, data, offset):
    """Register b: [k / 4][16][4] bytes from data[offset] on."""
    for i in range(0, 16 * k, 64):
        store(room, 1024 * b + i, load(u8x64, data, offset + i))


@inline
def store_sums_in_memory(room, c, data, offset):
    """Write register c, i32 [16][16], to data[offset]."""
    for i in range(0, 1024, 64):
        store(data, offset + i, load(u8x64, room, 1024 * c + i))


@inline
def add_products_in_memory(room, lane, c, a, b):
    """c += a · b; the bytes of b are of the lane type `lane`, u8 or i8."""
    for r in range(16):
        place = 1024 * c + 64 * r
        total = load(i32x16, room, place)
        for i in range(16):
            left = convert(i16, load_repeated(1, 16, room, 1024 * a + 64 * r + 4 * i))
            right = convert(i16, load(wide(lane, 64), room, 1024 * b + 64 * i))
            total += neighbours_added(dot2_i16(left * right, splat(i16x64, 1)))
        store(room, place, total)


set_up = _set_up if TARGET_HAS_THEM else set_up_in_memory
set_back = _set_back if TARGET_HAS_THEM else set_back_in_memory
clear = _clear if TARGET_HAS_THEM else clear_in_memory
load_left = _load_left if TARGET_HAS_THEM else load_left_in_memory
load_right = _load_right if TARGET_HAS_THEM else load_right_in_memory
store_sums = _store_sums if TARGET_HAS_THEM else store_sums_in_memory
add_products = _add_products if TARGET_HAS_THEM else add_products_in_memory
