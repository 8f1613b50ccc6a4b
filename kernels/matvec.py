"""Products of packed rows with one token rounded to 8 bits, straight from the file's mapping, with llama.cpp's bits.

A driver gives threads their rows; a kind's `dot_rows` computes a few rows that lie far apart, because several streams of memory
are faster than one.
"""

import numba
import numpy as np
from numba import njit, prange
from numba.extending import overload

from . import q8_0
from .simd import fetch_add
from .static import Static

CHUNK = 256  # rows that a thread claims at once
# kind -> rows at once, and the worker that leaves their products in its last argument
WORKERS = {"Q8_0": (4, q8_0.four_rows)}


def rows_at_once(kind):
    raise NotImplementedError("for kernels only")


def dot_rows(kind, rows, at, stride, blocks, q, d, sums, result):
    raise NotImplementedError("for kernels only")


@overload(rows_at_once)
def _rows_at_once(kind):
    count = WORKERS[kind.value][0]
    return lambda kind: count


@overload(dot_rows)
def _dot_rows(kind, rows, at, stride, blocks, q, d, sums, result):
    worker = WORKERS[kind.value][1]
    return lambda kind, rows, at, stride, blocks, q, d, sums, result: worker(rows, at, stride, blocks, q, d, sums, result)


@njit
def _share(kind, claimed, rows, n, row_bytes, blocks, q, d, sums, out):
    """One thread's work, until no rows are left. Fewer rows than a worker takes are done one by one: it reads one many times."""
    R = rows_at_once(kind)
    result = np.empty(R, np.float32)
    while True:
        first = fetch_add(claimed, CHUNK)
        last = min(first + CHUNK, n)
        if first >= n:
            break
        while first < last:
            apart = (last - first) // R
            for r in range(first, first + max(apart, 1)):
                dot_rows(kind, rows, r * row_bytes, apart * row_bytes, blocks, q, d, sums, result)
                for k in range(R):
                    out[r + k * apart] = result[k]
            first += max(R * apart, 1)


@njit(parallel=True, cache=True)
def _matvec(kind, rows, n, row_bytes, blocks, q, d, sums, out, claimed, threads):
    for _ in prange(threads):
        _share(kind, claimed, rows, n, row_bytes, blocks, q, d, sums, out)


def matvec(kind, rows, q, d, sums, out):
    """out [O] = rows [O, bytes] times one token: q [I] int8, d [N] float32, sums as the kind's worker wants them."""
    flat = rows.reshape(-1).view()
    flat.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    claimed, threads = np.zeros(1, np.int64), numba.get_num_threads()
    _matvec(Static(kind), flat, len(rows), rows.shape[1], d.size, q, d, sums, out, claimed, threads)
