"""Products of packed rows with one 8-bit token, eight rows at once, straight from the file: rows are lanes.

A thread claims rows in chunks and reads a chunk as eight streams that lie far apart, which is faster than one stream. A block is
taken apart in registers and forgotten. Twins: the paths of ops.ggml_product that keep one number a row.
"""

import numba
import numpy as np
from numba import njit, prange
from numba.extending import overload

from .blocks import TYPES, codes, delta, lower, scales, the
from .layout import COLUMNS, each_twice, in_pairs
from .simd import (
    Vec,
    bitcast,
    convert,
    dot2_i8,
    dot2_i16,
    f32,
    fetch_add,
    fma,
    fold,
    fold_every,
    i16,
    load,
    load_repeated,
    repeat_every,
    splat,
    store,
    wide,
)
from .static import Static

CHUNK = 256  # rows that a thread claims at once
i16x16, i32x8, f32x8 = Vec("i", 16, 16), Vec("i", 32, 8), Vec("f", 32, 8)


def sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    """Of eight rows and block n of the token: Σ scale · Σ code · code, and Σ minimum · Σ code, two i32x8."""
    raise NotImplementedError("for kernels only")


@overload(sums_of_block, jit_options={"forceinline": True})
def _sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    of = TYPES[kind.value]
    parts, flush, offset, minima, groups = of.PARTS, of.FLUSH, of.OFFSET, of.M >= 0, of.WEIGHTS // of.GROUP
    words, twice = of.WEIGHTS // 4 // parts, of.GROUP // 4 // of.FLUSH  # of one part; registers under one scale
    registers, pairs = groups // parts, groups // 2

    @njit(forceinline=True)
    def of_part(kind, rows, at, stride, q, n, scratch, p):
        code = codes(kind, COLUMNS, rows, at, stride, p)
        products = dot2_i8(code, load_repeated(words, 8, q, 4 * words * (parts * n + p)))
        scale = repeat_every(load(wide(i16x16, registers), scratch, 32 * registers * p), 16, twice)
        return fold(i32x8, dot2_i16(fold_every(products, 16, flush), scale))

    def with_scales(kind, rows, at, stride, q, sums, n, scratch):
        scale, minimum = scales(kind, COLUMNS, rows, at, stride)
        store(scratch, 0, each_twice(scale))
        below = splat(i32x8, 0)
        if minima or offset:
            below = fold(i32x8, dot2_i16(in_pairs(minimum), bitcast(i16, load_repeated(pairs, 8, sums, 2 * groups * n))))
        dot = below * -offset
        dot += of_part(kind, rows, at, stride, q, n, scratch, 0)
        dot += of_part(kind, rows, at, stride, q, n, scratch, 1)
        if parts == 4:  # written out, so that a part's shifts are constants and what parts share is loaded once
            dot += of_part(kind, rows, at, stride, q, n, scratch, 2)
            dot += of_part(kind, rows, at, stride, q, n, scratch, 3)
        return dot, below

    def without(kind, rows, at, stride, q, sums, n, scratch):
        products = dot2_i8(codes(kind, COLUMNS, rows, at, stride, 0), load_repeated(8, 8, q, 32 * n))
        products = fold_every(products, 16, flush)
        below = splat(i32x8, sums[n])
        return fold(i32x8, dot2_i16(products, splat(wide(i16x16, twice), 1))) - below * offset, below

    return with_scales if groups > 1 else without


def added(path, dot, below, d, dmin, factor, total, offset):
    """The running numbers of eight rows, one block further."""
    raise NotImplementedError("for kernels only")


@overload(added, jit_options={"forceinline": True})
def _added(path, dot, below, d, dmin, factor, total, offset):
    def super_blocks(path, dot, below, d, dmin, factor, total, offset):
        return fma(fma(dmin * np.float32(-1), below, d * dot), splat(f32x8, factor), total), offset

    def whole_blocks(path, dot, below, d, dmin, factor, total, offset):
        return fma(dot, d * factor, total), offset

    def sums_of_q4_k(path, dot, below, d, dmin, factor, total, offset):
        return fma(dot, d * factor, total), fma(below, dmin * factor, offset)

    return {
        "super_blocks": super_blocks,
        "whole_blocks": whole_blocks,
        "whole_super_blocks": whole_blocks,
        "sums_of_q4_k": sums_of_q4_k,
    }[path.value]


@njit
def eight_rows(kind, path, rows, first, stride, blocks, q, d, sums, scratch, result):
    total, offset = splat(f32x8, 0), splat(f32x8, 0)
    for n in range(blocks):
        at = first + the(kind, "BLOCK") * n
        dot, below = sums_of_block(kind, rows, at, stride, q, sums, n, scratch)
        high = delta(kind, COLUMNS, rows, at, stride)
        low = lower(kind, COLUMNS, rows, at, stride) if the(kind, "M") >= 0 else splat(f32x8, 0)
        total, offset = added(path, convert(f32, dot), convert(f32, below), high, low, d[n], total, offset)
    store(result, 0, total - offset)


@njit
def _share(kind, path, claimed, rows, n, row_bytes, q, d, sums, out):
    """One thread's work, until no rows are left. Fewer than eight rows are done one by one: one row is read eight times."""
    result, scratch = np.empty(8, np.float32), np.empty(256, np.int16)
    while True:
        first = fetch_add(claimed, CHUNK)
        last = min(first + CHUNK, n)
        if first >= n:
            break
        while first < last:
            apart = (last - first) // 8
            for r in range(first, first + max(apart, 1)):
                eight_rows(kind, path, rows, r * row_bytes, apart * row_bytes, d.size, q, d, sums, scratch, result)
                for k in range(8):
                    out[r + k * apart] = result[k]
            first += max(8 * apart, 1)


@njit(parallel=True, cache=True)
def _columns(kind, path, rows, n, row_bytes, q, d, sums, out, claimed, threads):
    for _ in prange(threads):
        _share(kind, path, claimed, rows, n, row_bytes, q, d, sums, out)


def columns(kind, path, rows, q, d, sums, out):
    """out [O] = rows [O, bytes] times one token: q [I] int8, d [N] float32, sums [N · groups] int16.

    path  super_blocks, whole_blocks, whole_super_blocks or sums_of_q4_k
    sums  of the codes that stand under one scale
    """
    flat = rows.reshape(-1).view()
    flat.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    claimed, threads = np.zeros(1, np.int64), numba.get_num_threads()
    _columns(Static(kind), Static(path), flat, len(rows), rows.shape[1], q, d, sums, out, claimed, threads)
