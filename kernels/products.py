"""Products of packed rows with tokens that are rounded to 8 bits, straight from the file's mapping.

A way of WAYS multiplies a few rows at once that lie far apart, because several streams of memory are faster than one; here
threads claim rows in chunks, until none are left. A way is a module with

  ROWS                rows at once
  SCRATCH             bytes of scratch that it wants
  prepared(kind, a)   the tokens as its kernels read them: a tuple of arrays, the scales [T', N] or [N, T'] second; T' >= T
  some_rows(kind, path, rows, at, stride, tokens, scratch, result)
                      the products of the rows at `at`, at + stride ... with all tokens -> result [T', ROWS]
"""

import numba
import numpy as np
from numba import njit, prange
from numba.extending import overload

from . import columns, lanes, panels
from .blocks import TYPES
from .simd import fetch_add
from .static import Static, for_kernels

CHUNK = 256  # rows that a thread claims at once
WAYS = {"columns": columns, "panels": panels, "lanes": lanes}
SCRATCH = max(way.SCRATCH for way in WAYS.values())


@for_kernels
def some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    """See above."""


@overload(some_rows)
def _some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    of_way = WAYS[way.value].some_rows
    return lambda way, kind, path, rows, at, stride, tokens, scratch, result: of_way(
        kind, path, rows, at, stride, tokens, scratch, result
    )


@njit
def _share(way, kind, path, claimed, rows, tokens, results, out):
    """One thread's work, until no rows are left. Fewer rows than a way takes are done one by one: one row is read many times."""
    (n, row_bytes), R, scratch = rows.shape, results.shape[1], np.empty(SCRATCH, np.uint8)
    while True:
        first = fetch_add(claimed, CHUNK)
        last = min(first + CHUNK, n)
        if first >= n:
            break
        while first < last:
            apart = (last - first) // R
            for r in range(first, first + max(apart, 1)):
                some_rows(way, kind, path, rows, r * row_bytes, apart * row_bytes, tokens, scratch, results)
                for t in range(len(out)):
                    for k in range(R):
                        out[t, r + k * apart] = results[t, k]
            first += max(R * apart, 1)


@njit(parallel=True, cache=True)
def _multiply(way, kind, path, rows, tokens, out, results, claimed):
    for i in prange(len(results)):
        _share(way, kind, path, claimed, rows, tokens, results[i], out)


def product(way, kind, path, rows, tokens, out):
    """out [T, O] float32 = rows [O, bytes] times the tokens that the way has `prepared`.

    way, kind, path  names: of WAYS, of a packed type, and of a function of ops.ggml_product that the way has
    """
    rows = np.ascontiguousarray(rows).view()
    rows.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    blocks = rows.shape[1] // TYPES[kind].BLOCK
    results = np.empty((numba.get_num_threads(), tokens[1].size // blocks, WAYS[way].ROWS), np.float32)
    _multiply(Static(way), Static(kind), Static(path), rows, tokens, out, results, np.zeros(1, np.int64))
