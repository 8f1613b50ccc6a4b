"""A way for many tokens with matrix registers: a block of 32 rows is unpacked into two panels once, and multiplied by 32 tokens at
a time.

Where blocks have groups, a weight in a panel is scale · code: a whole number of up to 16 bits, in two planes of bytes. So a block
of 256 weights is summed up without a scale in between, exactly. Has the paths of accumulate.py that have one running number.
"""

from ..language.arithmetic import fold
from ..language.compile_time import inline, maker, within
from ..language.dots import dot2_i16
from ..language.matrix_registers import ROOM, add_products, clear, load_left, load_right, set_back, set_up, store_sums
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, convert, repeat, splat, wide
from ..language.row_layout import SIXTEEN_ROWS as LAYOUT
from ..language.row_layout import Block, count_of, factors, in_pairs
from ..language.vectors import DOT4, Vec, f32, i8, i16, u8
from ..types.contract import TYPES, packed
from .accumulate import ADDED, FLOAT_SUMS

SIDE = count_of(LAYOUT)  # rows, and tokens, of a register
ROWS, TOKENS, STREAMS_UP_TO = 2 * SIDE, 2 * SIDE, 0
WORD = 4 * SIDE  # bytes of 4 codes of each row; also of a float, of a scale
i32s, f32s, i16s = Vec("i", 32, SIDE), Vec("f", 32, SIDE), Vec("i", 16, 2 * SIDE)

# a panel, in bytes
UPPER = 64 * WORD  # after lower bytes [64 words][16 rows][4]
MINIMA = 2 * UPPER  # after upper bytes, which have the sign
DELTA = MINIMA + 8 * WORD  # after minima i16 [8 pairs of groups][16 rows][2]
LOWER = DELTA + WORD
PANEL = LOWER + WORD
# scratch: two panels, and
SCALES = 2 * PANEL  # i16 twice, [16 groups][16 rows]
SUMS = SCALES + 16 * WORD  # twice i32 [2 planes][32 tokens][16 rows]
REGISTERS = SUMS + 2 * 2 * TOKENS * WORD
SCRATCH = REGISTERS + ROOM


def tokens_at_once(kind):
    """How many tokens are interleaved: one."""
    return 1


def bytes_at_once(kind):
    """Bytes of a token that a register holds."""
    return min(64, TYPES[kind].WEIGHTS)


@maker
def unpacking(kind):
    """The function (block, scratch, at) that fills the panel at a byte with one block of each of 16 rows."""
    of = packed(kind)
    codes, numbers, scales, read_d, read_dmin = of.codes, of.numbers, of.scales, of.read_d, of.read_dmin
    parts, part_bytes, groups, words, minima = of.parts, of.weights // of.parts * SIDE, of.groups, of.group // 4, of.minima

    @inline
    def scale_twice(scratch, g):
        scale = load(i32s, scratch, SCALES + WORD * g)
        return bitcast(i16, (scale & 0xFFFF) | (scale << 16)) if DOT4 else bitcast(i16, scale)

    @inline
    def in_planes(scratch, at):
        for g in range(groups):
            scale = scale_twice(scratch, g)
            for w in range(words * g, words * g + words):
                code = load(i16s, scratch, at + WORD * w)  # two codes of 8 bits each
                even, odd = ((code << 8) >> 8) * scale, (code >> 8) * scale
                store(scratch, at + WORD * w, (even & 255) | (odd << 8))
                store(scratch, at + UPPER + WORD * w, ((even >> 8) & 255) | (odd & -256))

    @within
    def unpack(block, scratch, at):
        for p in range(parts):
            store(scratch, at + part_bytes * p, numbers(codes(block, p)))
        scale, minimum = scales(block)
        store(scratch, at + DELTA, read_d(block))
        if minima:
            store(scratch, at + MINIMA, in_pairs(block, minimum))
            store(scratch, at + LOWER, read_dmin(block))
        if groups > 1:
            store(scratch, SCALES, factors(block, scale))
            in_planes(scratch, at)

    return unpack


@maker
def multiplying(kind):
    """Two functions of the sums of 32 tokens and the 16 rows of a panel.

    step(q, first, scratch, at, i)  adds the products of the i-th 64 weights; the tokens begin at the byte `first` of q
    keep(scratch, sums)             writes the sums to a byte of scratch, i32 [planes][32][16], and begins new ones
    """
    weights, k, planes = TYPES[kind].WEIGHTS, bytes_at_once(kind), 2 if packed(kind).groups > 1 else 1

    @inline
    def step(q, first, scratch, at, i):
        room = scratch[REGISTERS:]
        load_left(room, k, 4, q, first + k * i, weights)
        load_left(room, k, 5, q, first + k * i + weights * SIDE, weights)
        load_right(room, k, 6, scratch, at + k * SIDE * i)
        if planes == 1:
            add_products(room, i8, 0, 4, 6)
            add_products(room, i8, 1, 5, 6)
        else:
            load_right(room, k, 7, scratch, at + UPPER + k * SIDE * i)
            add_products(room, u8, 0, 4, 6)
            add_products(room, u8, 1, 5, 6)
            add_products(room, i8, 2, 4, 7)
            add_products(room, i8, 3, 5, 7)

    @inline
    def keep(scratch, sums):
        room = scratch[REGISTERS:]
        store_sums(room, 0, scratch, sums)
        store_sums(room, 1, scratch, sums + SIDE * WORD)
        if planes == 2:
            store_sums(room, 2, scratch, sums + 2 * SIDE * WORD)
            store_sums(room, 3, scratch, sums + 3 * SIDE * WORD)
        clear_all(room)

    return step, keep


@inline
def clear_all(room):
    """Zeros in the registers of sums."""
    clear(room, 0)
    clear(room, 1)
    clear(room, 2)
    clear(room, 3)


@maker
def accumulating(kind, path):
    """The function that makes floats of the sums of the i-th few of 32 tokens and the rows of a panel, and adds them to `result`.

    Its parameters are (tokens, n, t, i, scratch, sums, at, result, place): block n of the tokens from t on, the bytes of scratch
    where their sums and the panel are, and the byte of result.
    """
    of, added, float_sums = packed(kind), ADDED[path], path in FLOAT_SUMS
    minima, planes, pairs = of.minima, 2 if of.groups > 1 else 1, (of.groups + 1) // 2
    few = TOKENS * bytes_at_once(kind) // of.weights

    @inline
    def accumulate(tokens, n, t, i, scratch, sums, at, result, place):
        d, sums_of_q, first = tokens[1], tokens[2], n * tokens[1].shape[1] + t
        minimum = load(wide(i16s, pairs), scratch, at + MINIMA)
        high = load(f32s, scratch, at + DELTA)
        low = load(f32s, scratch, at + LOWER) if minima else splat(f32s, 0)
        for k in range(few * i, few * i + few):
            dot, below = load(i32s, scratch, sums + WORD * k), splat(i32s, 0)
            if planes == 2:
                dot += load(i32s, scratch, sums + TOKENS * WORD + WORD * k) << 8
            if minima:
                pair = load_repeated(pairs, SIDE, sums_of_q, 4 * pairs * (first + k))
                below = fold(dot2_i16(minimum, bitcast(i16, pair)), SIDE)
            total, factor = load(f32s, result, place + 4 * ROWS * k), repeat(load(f32, d, 4 * (first + k)), SIDE)
            lower = repeat(load(f32, tokens[3], 4 * (first + k)), SIDE) if float_sums else convert(f32, below)
            total, _ = added(convert(f32, dot), lower, high, low, factor, total, splat(f32s, 0))
            store(result, place + 4 * ROWS * k, total)

    return accumulate


@maker
def all_tokens(kind, path):
    """The function (n, tokens, scratch, result) that multiplies all tokens with block n of two panels, and adds to result [T', 32].

    While the processor multiplies, the sums before become floats.
    """
    weights, accumulate, (step, keep) = TYPES[kind].WEIGHTS, accumulating(kind, path), multiplying(kind)
    steps = weights // bytes_at_once(kind)

    @within
    def multiply(n, tokens, scratch, result):
        q, T = tokens[0], tokens[1].shape[1]
        many = T // SIDE  # two panels, 32 tokens at a time
        for s in range(many + 1):
            t, half, before, half_before = s // 2 * TOKENS, s % 2, (s - 1) // 2 * TOKENS, (s - 1) % 2
            for i in range(steps):
                if s < many:
                    step(q, weights * (n * T + t), scratch, PANEL * half, i)
                if s > 0:
                    sums, place = SUMS + 2 * TOKENS * WORD * half_before, 4 * (ROWS * before + SIDE * half_before)
                    accumulate(tokens, n, before, i, scratch, sums, PANEL * half_before, result, place)
            if s < many:
                keep(scratch, SUMS + 2 * TOKENS * WORD * half)

    return multiply


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    size, k, unpack, multiply = TYPES[kind].BLOCK, bytes_at_once(kind), unpacking(kind), all_tokens(kind, path)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        room = scratch[REGISTERS:]
        result[:] = 0
        set_up(room, k)
        clear_all(room)
        for n in range(tokens[1].shape[0]):
            unpack(Block(LAYOUT, rows, at + size * n, stride), scratch, 0)
            unpack(Block(LAYOUT, rows, at + size * n + SIDE * stride, stride), scratch, PANEL)
            multiply(n, tokens, scratch, result)
        set_back(room)

    return some_rows
