"""Products of packed rows with tokens that are rounded to 8 bits, straight from the file's mapping.

A way of WAYS multiplies a few rows at once; here threads round the tokens, then claim rows in chunks, until none are left.
A way is a module with

  ROWS            rows at once
  STREAMS         tokens up to which these rows lie far apart, each followed by the next: so memory is read in streams from front to
                  back, each fetched a little ahead. For more tokens rows lie together, for their results are written together
  SCRATCH         bytes of scratch that it wants
  together(kind)  tokens that lie side by side (rounded_tokens.py)
  driver(kind, path)
                  the function (way, kind, path, rows, at, stride, tokens, scratch, result) that writes the products of the rows
                  at `at`, at + stride ... with all tokens to result [T', ROWS]
"""

from functools import cache

import numpy as np
from numba import get_num_threads, njit, prange, types
from numba.extending import overload

from ..language.compile_time import WITHIN, address, call, entry, for_kernels
from ..language.memory import fetch_add
from . import panels, rows_as_lanes, vec_dot
from .rounded_tokens import SIZES, TOKENS, form_of, room, round_tokens, sizes

CHUNK = 512  # rows that a thread claims at once, at most
WAYS = {"rows_as_lanes": rows_as_lanes, "panels": panels, "vec_dot": vec_dot}
FEW = 16  # tokens that one thread rounds
SCRATCH = max(way.SCRATCH for way in WAYS.values())


@for_kernels
def some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    """Write the products of a way's ROWS rows with all tokens to result [T', ROWS], by the way's driver."""


@for_kernels
def rows_of(way):
    """The way's ROWS."""


@for_kernels
def streams(way):
    """The way's STREAMS."""


@overload(some_rows, jit_options=WITHIN)
def _some_rows(way, kind, path, rows, at, stride, tokens, scratch, result):
    return WAYS[way.value].driver(kind.value, path.value)


@overload(rows_of, jit_options=WITHIN)
def _rows_of(way):
    count = WAYS[way.value].ROWS
    return lambda way: count


@overload(streams, jit_options=WITHIN)
def _streams(way):
    count = WAYS[way.value].STREAMS
    return lambda way: count


@njit(cache=True)
def _share(way, kind, path, claimed, chunk, rows, tokens, out):
    """One thread's work, until no rows are left."""
    (n, row_bytes), R = rows.shape, rows_of(way)
    scratch = np.empty(SCRATCH + 64, np.uint8)
    scratch = scratch[-scratch.ctypes.data % 64 :]  # whole cache lines
    result = np.empty((tokens[1].shape[1], R), np.float32)
    while True:
        start = fetch_add(claimed, chunk)
        if start and start + R > n:  # fewer rows than R belong to the chunk before
            break
        stop = start + chunk if start + chunk + R <= n else n
        apart = (stop - start) // R  # none, if there are fewer than R rows in all: then one by one, each R times
        left = stop - start - R * apart
        for i in range(apart + min(left, 1) if apart else left):
            first, stride = (start + i, apart) if len(out) <= streams(way) or not apart else (start + R * i, 1)
            if apart and i == apart:  # what is left begins with rows that are done: their bits stay
                first, stride = stop - R, 1
            some_rows(way, kind, path, rows, first * row_bytes, stride * row_bytes, tokens, scratch, result)
            for t in range(len(out)):
                for k in range(R):
                    out[t, first + k * stride] = result[t, k]


@njit(parallel=True, cache=True)
def _multiply(rounding, sharing, sizes, rows, x, out, threads, chunk, of_tokens, of_rows):
    """With the kernels at two addresses; a few tokens are rounded by one thread."""
    tokens = room(sizes)
    if len(x) < FEW:
        call(rounding, (None, None, of_tokens, x, tokens))
    else:
        for _ in prange(threads):
            call(rounding, (None, None, of_tokens, x, tokens))
    for _ in prange(threads):
        call(sharing, (None, None, None, of_rows, chunk, rows, tokens, out))


COUNTER, FLOATS = types.Array(types.int64, 1, "C"), types.Array(types.float32, 2, "C")
ROWS = types.Array(types.uint8, 2, "C", readonly=True)


@cache
def compiled(way, kind, path):
    """Compile what a product of this type needs. Returns form and count of the tokens, and the addresses of two kernels.

    The first rounds tokens, the second multiplies rows; both are one thread's work.
    """
    form, count, number = form_of(kind), WAYS[way].together(kind), types.int64
    rounding = address(round_tokens, (form, count), COUNTER, FLOATS, TOKENS)
    return form, count, rounding, address(_share, (way, kind, path), COUNTER, number, ROWS, TOKENS, FLOATS)


@cache
def _compiled():
    number = types.int64
    return entry(_multiply, (), number, number, SIZES, ROWS, FLOATS, FLOATS, number, number, COUNTER, COUNTER)


def product(way, kind, path, rows, x, out):
    """Packed rows times tokens, in integers as llama.cpp multiplies them. Twin of the function of ops.ggml_product named `path`.

    way   a name of WAYS
    kind  a name of a packed type (blocks.TYPES)
    path  a function of ops.ggml_product that the way has
    rows  [O, bytes] uint8
    x     [T, I] float32
    out   [T, O] float32, C-contiguous: overwritten
    """
    rows, x = np.ascontiguousarray(rows, np.uint8), np.ascontiguousarray(x, np.float32)
    assert out.flags.c_contiguous
    assert out.dtype == np.float32
    assert out.shape == (len(x), len(rows))
    threads, claimed = get_num_threads(), np.zeros((2, 1), np.int64)
    chunk = max(16, min(CHUNK, len(rows) // (4 * threads) // 16 * 16))
    form, count, rounding, sharing = compiled(way, kind, path)
    _compiled()(rounding, sharing, sizes(form, count, *x.shape), rows, x, out, threads, chunk, claimed[0], claimed[1])
