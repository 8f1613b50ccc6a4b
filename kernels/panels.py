"""Products of packed rows with 8-bit tokens, rows as lanes: a block of 16 rows is unpacked once, for all tokens."""

import numba
import numpy as np
from numba import njit, prange

from .blocks import as_codes, codes, delta, lower, scales, the
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
    i16,
    load,
    load_repeated,
    load_rows,
    repeat,
    splat,
    store,
    tile,
    wide,
)
from .static import Static

CHUNK = 256  # rows that a thread claims at once: as sixteen streams that are far apart they are faster than one
u8x64, i16x32, i32x16, f32x8, f32x16 = Vec("u", 8, 64), Vec("i", 16, 32), Vec("i", 32, 16), Vec("f", 32, 8), Vec("f", 32, 16)

# a panel of eight rows, in bytes; rows are lanes
SCALES = 64 * 32  # after codes [64 words][8 rows][4]
MINIMA = SCALES + 16 * 32  # after scales i16 [16 or 8 groups][8 rows][twice]
DELTA = MINIMA + 8 * 32  # after minima i16 [8 or 4 pairs of groups][8 rows][2]
LOWER = DELTA + 32
PANEL = LOWER + 32


@njit
def unpack(kind, rows, at, stride, panel, to):
    part_bytes = 8 * the(kind, "WEIGHTS") // the(kind, "PARTS")
    for p in range(the(kind, "PARTS")):
        store(panel, to + part_bytes * p, codes(kind, COLUMNS, rows, at, stride, p))
    scale, minimum = scales(kind, COLUMNS, rows, at, stride)
    store(panel, to + SCALES, each_twice(scale))
    store(panel, to + DELTA, delta(kind, COLUMNS, rows, at, stride))
    if the(kind, "M") >= 0:
        store(panel, to + MINIMA, in_pairs(minimum))
        store(panel, to + LOWER, lower(kind, COLUMNS, rows, at, stride))
    if the(kind, "OFFSET") > 0:
        store(panel, to + MINIMA, in_pairs(minimum) * the(kind, "OFFSET"))


@njit(forceinline=True)
def _below(kind, tokens, panel, sums, sums_at):
    """minimum times the sum of the tokens' codes: i32 lanes [tokens][2 panels][8 rows]."""
    below = splat(wide(i32x16, tokens), 0)
    for j in range(128 // the(kind, "GROUP")):
        minima = tile(load_rows(i16x32, 2, panel, MINIMA + 32 * j, PANEL), tokens)
        below += dot2_i16(minima, bitcast(i16, load_repeated(tokens, 16, sums, sums_at + 4 * tokens.value * j)))
    return below


@njit
def multiply(kind, tokens, panel, q, q_at, sums, sums_at, d, d_at, totals, at):
    """Add a block of 16 rows times a few tokens: lanes [tokens][2 panels][8 rows]."""
    flush, in_group = the(kind, "FLUSH"), the(kind, "GROUP") // 4
    dot = splat(wide(i32x16, tokens), 0)
    if the(kind, "OFFSET") > 0:
        dot -= _below(kind, tokens, panel, sums, sums_at)
    for g in range(64 // in_group):
        scale = tile(load_rows(i16x32, 2, panel, SCALES + 32 * g, PANEL), tokens)
        for k in range(g * in_group, g * in_group + in_group, flush):
            products = splat(wide(i16x32, tokens), 0)
            for i in range(k, k + flush):
                weights = tile(as_codes(kind, load_rows(u8x64, 2, panel, 32 * i, PANEL)), tokens)
                products += dot2_i8(weights, load_repeated(tokens, 16, q, q_at + 4 * tokens.value * i))
            dot += dot2_i16(products, scale)
    value = tile(load_rows(f32x16, 2, panel, DELTA, PANEL), tokens) * convert(f32, dot)
    if the(kind, "M") >= 0:
        below = convert(f32, _below(kind, tokens, panel, sums, sums_at))
        under = tile(load_rows(f32x16, 2, panel, LOWER, PANEL), tokens)
        value = fma(under * np.float32(-1), below, value)
    scale = repeat(load(wide(f32, tokens), d, d_at), 16)
    store(totals, at, fma(value, scale, load(wide(f32x16, tokens), totals, at)))


@njit
def _share(kind, tokens, claimed, rows, n, row_bytes, q, d, sums, out):
    """One thread's work, until no rows are left: q [N, T / tokens, 64, tokens, 4], d [N, T], sums [N, T / tokens, ...]."""
    blocks, T = d.shape
    panel, totals = np.empty(2 * PANEL, np.uint8), np.empty((T, 16), np.float32)
    each, groups = tokens.value, T // tokens.value
    while True:
        first = fetch_add(claimed, CHUNK)
        last = min(first + CHUNK, n)
        if first >= n:
            break
        while first < last:
            apart = (last - first) // 16
            for r in range(first, first + max(apart, 1)):
                totals[:] = 0
                for b in range(blocks):
                    at = r * row_bytes + the(kind, "BLOCK") * b
                    unpack(kind, rows, at, apart * row_bytes, panel, 0)
                    unpack(kind, rows, at + 8 * apart * row_bytes, apart * row_bytes, panel, PANEL)
                    for t in range(groups):
                        place = b * groups + t
                        multiply(
                            kind,
                            tokens,
                            panel,
                            q,
                            256 * each * place,
                            sums,
                            512 // the(kind, "GROUP") * each * place,
                            d,
                            4 * each * place,
                            totals,
                            64 * each * t,
                        )
                for t in range(T):
                    for k in range(16):
                        out[t, r + k * apart] = totals[t, k]
            first += max(16 * apart, 1)


@njit(parallel=True, cache=True)
def _panels(kind, tokens, rows, n, row_bytes, q, d, sums, out, claimed, threads):
    for _ in prange(threads):
        _share(kind, tokens, claimed, rows, n, row_bytes, q, d, sums, out)


def panels(kind, tokens, rows, q, d, sums, out):
    """The path super_blocks of a type of 256 weights: out [T, O] = rows [O, bytes] times T tokens, in groups of `tokens` (1 or 4).

    q [N, T / tokens, 64, tokens, 4] int8, d [N, T] float32, sums [N, T / tokens, groups / 2, tokens, 2] int16 of the codes under
    one scale.
    """
    flat = rows.reshape(-1).view()
    flat.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    claimed, threads = np.zeros(1, np.int64), numba.get_num_threads()
    _panels(Static(kind), Static(tokens), flat, len(rows), rows.shape[1], q, d, sums, out, claimed, threads)
