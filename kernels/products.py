"""Products of packed rows with tokens that are rounded to 8 bits, straight from the file's mapping.

A way of WAYS multiplies a few rows at once; here threads round the tokens, then claim rows in chunks, until none are left.
A way is a module with

  ROWS            rows at once
  FAR_APART       whether these lie far apart in a chunk, because several streams of memory are faster than one
  SCRATCH         bytes of scratch that it wants
  together(kind)  tokens that lie side by side (tokens.py)
  some_rows(kind, path, rows, at, stride, tokens, scratch, result)
                  the products of the rows at `at`, at + stride ... with all tokens -> result [T', ROWS]
"""

from functools import cache

import numpy as np
from numba import get_num_threads, njit, prange, types
from numba.extending import overload

from . import columns, lanes, panels
from .simd import fetch_add
from .static import Static, StaticType, for_kernels
from .tokens import room, round_tokens

CHUNK = 256  # rows that a thread claims at once, at most
FEW = 16  # tokens that one thread rounds
WAYS = {"columns": columns, "panels": panels, "lanes": lanes}
SCRATCH = max(way.SCRATCH for way in WAYS.values())


@for_kernels
def some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    """See above."""


@for_kernels
def together(way, kind):
    """See above."""


@for_kernels
def rows_of(way):
    """ROWS and FAR_APART of the way."""


@overload(some_rows)
def _some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    of_way = WAYS[way.value].some_rows
    return lambda way, kind, path, rows, at, stride, tokens, scratch, result: of_way(
        kind, path, rows, at, stride, tokens, scratch, result
    )


@overload(together)
def _together(way, kind):
    count = Static(WAYS[way.value].together(kind.value))
    return lambda way, kind: count


@overload(rows_of)
def _rows_of(way):
    both = WAYS[way.value].ROWS, WAYS[way.value].FAR_APART
    return lambda way: both


@njit
def _share(way, kind, path, claimed, chunk, rows, tokens, out):
    """One thread's work, until no rows are left. What is left of a chunk begins with rows that are done: their bits stay."""
    (n, row_bytes), (R, far_apart) = rows.shape, rows_of(way)
    scratch = np.empty(SCRATCH + 64, np.uint8)
    scratch = scratch[-scratch.ctypes.data % 64 :]  # whole cache lines
    result = np.empty((tokens[1].shape[1], R), np.float32)
    while True:
        start = fetch_add(claimed, chunk)
        if start > 0 and start + R > n:  # the chunk before has these few, too
            break
        stop = start + chunk if start + chunk + R <= n else n
        apart = max((stop - start) // R, 1) if far_apart else 1
        first = start
        while first < stop:
            if first + R * apart > stop:
                apart, first = 1, stop - R if stop - start >= R else first
            stride = apart if first + R <= stop else 0  # fewer than R rows: one by one, each R times
            for r in range(first, first + max(stride, 1) if far_apart else first + 1):
                some_rows(way, kind, path, rows, r * row_bytes, stride * row_bytes, tokens, scratch, result)
                for t in range(len(out)):
                    for k in range(R):
                        out[t, r + k * stride] = result[t, k]
            first += R * stride if stride else 1


@njit(parallel=True, cache=True)
def _multiply(way, kind, path, rows, x, out, threads):
    claimed, count = np.zeros((2, 1), np.int64), together(way, kind)
    tokens = room(kind, count, x.shape[0], x.shape[1])
    if len(x) < FEW:
        round_tokens(kind, count, claimed[0], x, tokens)
    else:
        for _ in prange(threads):
            round_tokens(kind, count, claimed[0], x, tokens)
    chunk = max(16, min(CHUNK, len(rows) // (4 * threads) // 16 * 16))
    for _ in prange(threads):
        _share(way, kind, path, claimed[1], chunk, rows, tokens, out)


@cache
def compiled(way, kind, path):
    """The machine code for one way, type and path, without Numba's dispatcher: that takes longer than a small product."""
    floats = types.Array(types.float32, 2, "C")
    rows = types.Array(types.uint8, 2, "C", readonly=True)
    return _multiply.compile((StaticType(way), StaticType(kind), StaticType(path), rows, floats, floats, types.int64))


def product(way, kind, path, rows, x, out):
    """out [T, O] = rows [O, bytes] times the tokens x [T, I], float32 both; out is C-contiguous.

    way, kind, path  names: of WAYS, of a packed type, and of a function of ops.ggml_product that the way has
    """
    rows, x = np.ascontiguousarray(rows, np.uint8), np.ascontiguousarray(x, np.float32)
    assert out.flags.c_contiguous
    assert out.dtype == np.float32
    assert out.shape == (len(x), len(rows))
    compiled(way, kind, path)(None, None, None, rows, x, out, get_num_threads())
