"""Packed rows as floats: of a whole tensor, and of a block for the products of linear.py.

Twin of quants.dequantize, bit for bit. In every packed type scale · scale of the group · code is exact: it has at most 11 + 7 + 6
bits. So one fused multiply-add of code, scale and minimum rounds where quants.Integers.floats rounds, at the subtraction.

A whole tensor is decoded as fast as memory takes it: stores go past the caches, which would read each line before it is written.
They want an address that is a multiple of 32 bytes; what fits into a cache is stored as usual.
"""

from functools import cache

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from ..language.arithmetic import fma
from ..language.compile_time import INLINE, WITHIN, address, call, entry, for_kernels, inline
from ..language.memory import fetch_add, load_repeated, store, store_rows, stream
from ..language.reshaping import bitcast, convert
from ..language.row_layout import ROW
from ..language.vectors import Vec
from ..types.contract import TYPES, codes, delta, lower, numbers, scales
from .float_rows import FLOATS

KINDS = {**TYPES, **FLOATS}
CHUNK = 1 << 14  # weights that a thread claims at once
LARGE = 1 << 23  # bytes that no cache need keep
SCRATCH, MINIMA = 128, 64  # bytes: 16 scales, 16 minima
STREAM, IN_ORDER = "stream", 8


@for_kernels
def of_kind(kind, name):
    """A constant of the type's module, float types included: its name is a literal."""


@overload(of_kind, prefer_literal=True, jit_options=WITHIN)
def _of_kind(kind, name):
    value = getattr(KINDS[kind.value], name.literal_value)
    return lambda kind, name: value


@for_kernels
def put(lanes, v, out, at, step):
    """Write the lanes of v, converted to the dtype of out, from the byte `at` on.

    lanes  a Static: "stream" writes them one after the other, past the caches; a number writes that many lanes every `step` bytes
    """


@overload(put, jit_options=INLINE)
def _put(lanes, v, out, at, step):
    if lanes.value == "stream":
        return lambda lanes, v, out, at, step: stream(out, at, v)
    rows, lane = v.lanes // lanes.value, Vec("f", out.dtype.bitwidth, 1)
    return lambda lanes, v, out, at, step: store_rows(rows, out, at, step, convert(lane, v))


@for_kernels
def block(kind, lanes, rows, at, scratch, out, to, step):
    """Decode the block at rows[at:], 32 or 256 weights, and `put` it at the byte `to` of out."""


@overload(block, jit_options=INLINE)
def _block(kind, lanes, rows, at, scratch, out, to, step):
    of = KINDS[kind.value]
    if kind.value in FLOATS:
        floats = of.floats
        return lambda kind, lanes, rows, at, scratch, out, to, step: put(lanes, floats(rows, at), out, to, step)

    minima, parts, group = of.M >= 0, of.PARTS, of.GROUP
    width, float_lane = of.WEIGHTS // of.PARTS, Vec("f", 32, 1)
    groups = width // group  # of a part
    pace = width // lanes.value if lanes.value != "stream" else 0  # steps of a part

    @inline
    def header(kind, rows, at, scratch):
        """Scales and minima of the groups as floats, to be repeated from memory."""
        scale, minimum = scales(kind, ROW, rows, at, 0)
        store(scratch, 0, convert(float_lane, scale) * delta(kind, ROW, rows, at, 0)[0])
        if minima:
            store(scratch, MINIMA, convert(float_lane, minimum) * -lower(kind, ROW, rows, at, 0)[0])

    @inline
    def repeated(scratch, at):
        return bitcast(float_lane, load_repeated(groups, group, scratch, at))

    def body(kind, lanes, rows, at, scratch, out, to, step):
        header(kind, rows, at, scratch)
        for p in range(parts):
            weight = convert(float_lane, numbers(kind, codes(kind, ROW, rows, at, 0, p)))
            if minima:
                weight = fma(repeated(scratch, 4 * groups * p), weight, repeated(scratch, MINIMA + 4 * groups * p))
            else:
                weight *= repeated(scratch, 4 * groups * p)
            put(lanes, weight, out, to + (step * pace if pace else 4 * width) * p, step)

    return body


@njit(cache=True)
def _share(kind, lanes, rows, out, claimed):
    """One thread's work: whole blocks of rows [bytes] -> out [weights], until none is left."""
    weights, scratch = of_kind(kind, "WEIGHTS"), np.empty(SCRATCH, np.uint8)
    blocks, many = out.size // weights, CHUNK // weights
    while True:
        first = fetch_add(claimed, many)
        if first >= blocks:
            break
        for n in range(first, min(first + many, blocks)):
            block(kind, lanes, rows, of_kind(kind, "BLOCK") * n, scratch, out, 4 * weights * n, 32)


@njit(parallel=True, cache=True)
def _decode(sharing, rows, out, claimed, threads):
    for _ in prange(threads):
        call(sharing, (None, None, rows, out, claimed))


SHARE = types.Array(types.uint8, 1, "C", readonly=True), types.Array(types.float32, 1, "C"), types.Array(types.int64, 1, "C")


@cache
def _in_one_thread(kind):
    return entry(_share, (kind, IN_ORDER), *SHARE)


@cache
def _in_threads(kind, lanes):
    """The kernel, and the address of what each thread does in it."""
    return entry(_decode, (), types.int64, *SHARE, types.int64), address(_share, (kind, lanes), *SHARE)


def dequantize(kind, rows, out):
    """Decode packed rows [O, bytes] of a type in KINDS into out [O, I] float32, contiguous. Twin of quants.dequantize."""
    rows, out = np.ascontiguousarray(rows).reshape(-1).view(), out.reshape(-1)
    rows.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    if out.nbytes < LARGE:
        _in_one_thread(kind)(None, None, rows, out, np.zeros(1, np.int64))
    else:
        run, sharing = _in_threads(kind, IN_ORDER if out.ctypes.data % 32 else STREAM)
        run(sharing, rows, out, np.zeros(1, np.int64), numba.get_num_threads())
    if rest := out.size % KINDS[kind].WEIGHTS:  # floats alone: a row of them need not be whole blocks
        last, floats = np.zeros(KINDS[kind].BLOCK, np.uint8), np.empty(KINDS[kind].WEIGHTS, np.float32)
        tail = rows[(out.size - rest) // KINDS[kind].WEIGHTS * KINDS[kind].BLOCK :]
        last[: tail.size] = tail
        last.setflags(write=False)
        _in_one_thread(kind)(None, None, last, floats, np.zeros(1, np.int64))
        out[-rest:] = floats[:rest]
