"""Packed rows as floats: of a whole tensor, and of a block for the products of linear.py.

Twin of quants.dequantize, bit for bit. In every packed type scale · scale of the group · code is exact: it has at most 11 + 7 + 6
bits. So one fused multiply-add of code, scale and minimum rounds where quants.Integers.floats rounds, at the subtraction.

A whole tensor is decoded as fast as memory takes it: stores go past the caches, which would read each line before it is written.
They want an address that is a multiple of 32 bytes; what fits into a cache is stored as usual.
"""

import numpy as np
from numba import njit, types

from ..language.arithmetic import fma
from ..language.compile_time import inline, made, maker
from ..language.memory import load_repeated, store, store_past_caches, store_rows
from ..language.reshaping import bitcast, convert
from ..language.row_layout import ROW, Block
from ..language.threads import in_threads
from ..language.vectors import Vec
from ..types.contract import TYPES, packed
from .float_rows import FLOATS

KINDS = {**TYPES, **FLOATS}
CHUNK = 1 << 14  # weights that a thread takes at once
LARGE = 1 << 23  # bytes that no cache need keep
SCRATCH, MINIMA = 128, 64  # bytes: 16 scales, 16 minima
PAST_CACHES, IN_ORDER = "past caches", 8


@maker
def putting(lanes, count, bits):
    """The function (v, out, at, step) that writes the lanes of v, f32, to out from the byte `at` on.

    lanes  "past caches" writes them one after the other, past the caches; a number writes that many lanes every `step` bytes
    count  of the lanes of v
    bits   of a number of out
    """
    rows, lane = 0 if lanes == PAST_CACHES else count // lanes, Vec("f", bits, 1)

    @inline
    def past_caches(v, out, at, step):
        store_past_caches(out, at, v)

    @inline
    def in_steps(v, out, at, step):
        store_rows(rows, out, at, step, convert(lane, v))

    return in_steps if rows else past_caches


@maker
def block_of_floats(kind, lanes, bits):
    """`block` of a type of floats."""
    floats, put = FLOATS[kind].floats, putting(lanes, FLOATS[kind].WEIGHTS, bits)

    @inline
    def of_floats(rows, at, scratch, out, to, step):
        put(floats(rows, at), out, to, step)

    return of_floats


@maker
def block(kind, lanes, bits):
    """The function (rows, at, scratch, out, to, step) that decodes the block at rows[at:] to the byte `to` of out.

    That is 32 or 256 weights. lanes, bits and step are as in `putting`.
    """
    if kind in FLOATS:
        return block_of_floats(kind, lanes, bits)
    of, f32 = packed(kind), Vec("f", 32, 1)
    codes, numbers, scales, read_d, read_dmin = of.codes, of.numbers, of.scales, of.read_d, of.read_dmin
    minima, parts, group, width, groups = of.minima, of.parts, of.group, of.weights // of.parts, of.groups // of.parts
    pace, put = 0 if lanes == PAST_CACHES else width // lanes, putting(lanes, width, bits)  # steps of a part

    @inline
    def header(block, scratch):
        """Scales and minima of the groups as floats, to be repeated from memory."""
        scale, minimum = scales(block)
        store(scratch, 0, convert(f32, scale) * read_d(block)[0])
        if minima:
            store(scratch, MINIMA, convert(f32, minimum) * -read_dmin(block)[0])

    @inline
    def repeated(scratch, at):
        return bitcast(f32, load_repeated(groups, group, scratch, at))

    @inline
    def of_groups(rows, at, scratch, out, to, step):
        block = Block(ROW, rows, at, np.int64(0))
        header(block, scratch)
        for p in range(parts):
            weight = convert(f32, numbers(codes(block, p)))
            if minima:
                weight = fma(repeated(scratch, 4 * groups * p), weight, repeated(scratch, MINIMA + 4 * groups * p))
            else:
                weight *= repeated(scratch, 4 * groups * p)
            put(weight, out, to + (step * pace if pace else 4 * width) * p, step)

    return of_groups


@maker
def blocks(kind, lanes):
    """The function (rows, out, first, last) that decodes the blocks `first` to `last` of rows [bytes] to out [weights]."""
    decode, weights, size = block(kind, lanes, 32), KINDS[kind].WEIGHTS, KINDS[kind].BLOCK

    @inline
    def some_blocks(rows, out, first, last):
        scratch = np.empty(SCRATCH, np.uint8)
        for n in range(first, last):
            decode(rows, size * n, scratch, out, 4 * weights * n, 32)

    return some_blocks


some_blocks = made(blocks)


@njit(cache=True)
def _blocks(kind, lanes, rows, out, first, last):
    some_blocks(kind, lanes)(rows, out, first, last)


ROWS, OUT = types.Array(types.uint8, 1, "C", readonly=True), types.Array(types.float32, 1, "C")


def dequantize(kind, rows, out):
    """Decode packed rows [O, bytes] of a type in KINDS into out [O, I] float32, contiguous. Twin of quants.dequantize."""
    rows, out, weights = np.ascontiguousarray(rows).reshape(-1).view(), out.reshape(-1), KINDS[kind].WEIGHTS
    rows.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    large = out.nbytes >= LARGE
    run = in_threads(_blocks, (kind, PAST_CACHES if large and out.ctypes.data % 32 == 0 else IN_ORDER), ROWS, OUT)
    run(out.size // weights, CHUNK // weights if large else out.size // weights, rows, out)
    if rest := out.size % weights:  # floats alone: a row of them need not be whole blocks
        last, floats = np.zeros(KINDS[kind].BLOCK, np.uint8), np.empty(weights, np.float32)
        tail = rows[(out.size - rest) // weights * KINDS[kind].BLOCK :]
        last[: tail.size] = tail
        last.setflags(write=False)
        in_threads(_blocks, (kind, IN_ORDER), ROWS, OUT)(1, 1, last, floats)
        out[-rest:] = floats[:rest]
