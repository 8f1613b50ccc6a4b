"""Products of packed rows with tokens that are rounded to 8 bits, straight from the file's mapping.

A way of WAYS multiplies a few rows at once; here threads round the tokens, then take rows in chunks, until none are left.
A way is a module with

  ROWS           rows at once
  STREAMS_UP_TO  tokens up to which these rows lie far apart, each followed by the next: so memory is read in streams from front
                 to back, each fetched a little ahead. For more tokens rows lie together, for their results are written together
  SCRATCH        bytes of scratch that it wants
  TOKENS         zeros fill the tokens up to a multiple of this
  tokens_at_once(kind)
                 tokens that lie side by side (rounded_tokens.py)
  driver(kind, path)
                 the function (rows, at, stride, tokens, scratch, result) that writes the products of the rows
                 at `at`, at + stride ... with all tokens to result [T', ROWS]
"""

from functools import cache

import numpy as np
from numba import get_num_threads, njit, types

from ..language.compile_time import address, entry, inline, made, maker, within
from ..language.threads import NUMBER, all_threads, share, worth
from . import matrices, pairs_as_lanes, pairs_of_vec_dot, panels, rows_as_lanes, vec_dot
from .rounded_tokens import SIZES, TOKENS, room, round_tokens, sizes, token_blocks

CHUNK = 512  # rows that a thread takes at once, at most
LEAST = 32  # rows of a chunk, or a multiple: at least those of a way
NANOSECONDS = 0.03  # for a weight times a number
AT_ONCE = 16  # tokens that a thread rounds at once: what several of them write lies in the same cache lines
WAYS = {
    "rows_as_lanes": rows_as_lanes,
    "pairs_as_lanes": pairs_as_lanes,
    "panels": panels,
    "matrices": matrices,
    "vec_dot": vec_dot,
    "pairs_of_vec_dot": pairs_of_vec_dot,
}
SCRATCH = max(way.SCRATCH for way in WAYS.values())


@maker
def multiplying(way, kind, path):
    """The function (start, stop, rows, tokens, scratch, out) that multiplies the rows `start` to `stop` with all tokens."""
    R, streams_up_to, some_rows = WAYS[way].ROWS, WAYS[way].STREAMS_UP_TO, WAYS[way].driver(kind, path)

    @inline
    def copied(result, out, first, stride):
        for t in range(len(out)):
            for k in range(R):
                out[t, first + k * stride] = result[t, k]

    @within
    def multiply(start, stop, rows, tokens, scratch, out):
        row_bytes, result = rows.shape[1], np.empty((tokens[1].shape[1], R), np.float32)
        length = (stop - start) // R  # of a stream; none, if there are fewer than R rows in all: then one by one, each R times
        left = stop - start - R * length
        for i in range(length + min(left, 1) if length else left):
            first, stride = (start + i, length) if len(out) <= streams_up_to or not length else (start + R * i, 1)
            if length and i == length:  # what is left begins with rows that are done: their bits stay
                first, stride = stop - R, 1
            some_rows(rows, first * row_bytes, stride * row_bytes, tokens, scratch, result)
            if stride == 1:  # known to be one where it matters: so whole registers are copied
                copied(result, out, first, 1)
            else:
                copied(result, out, first, stride)

    return multiply


multiply = made(multiplying)


@njit(cache=True)
def _chunks(way, kind, path, chunk, rows, tokens, out, first, last):
    """The chunks `first` to `last` of the rows; the last of all has all that are left."""
    n, scratch = len(rows), np.empty(SCRATCH + 64, np.uint8)
    scratch = scratch[-scratch.ctypes.data % 64 :]  # whole cache lines
    multiply_rows = multiply(way, kind, path)
    for i in range(first, last):
        start = chunk * i
        multiply_rows(start, start + chunk if start + chunk + LEAST <= n else n, rows, tokens, scratch, out)


@njit(cache=True)
def _multiply(threads, count, rounding, multiplying, sizes, rows, x, out, chunk, chunks):
    """With the kernels at two addresses."""
    tokens = room(sizes)
    share(threads, count, rounding, (None, None, x, tokens), len(x), AT_ONCE)
    share(threads, count, multiplying, (None, None, None, chunk, rows, tokens, out), chunks, 1)


FLOATS, ROWS = types.Array(types.float32, 2, "C"), types.Array(types.uint8, 2, "C", readonly=True)


@cache
def compiled(way, kind, path):
    """Compile what a product of this type needs.

    Returns what blocks tokens have, to a multiple of what they are filled up, and the addresses of two kernels: the first rounds
    tokens, the second multiplies rows.
    """
    blocks, at_once = token_blocks(kind), WAYS[way].tokens_at_once(kind)
    rounding = address(round_tokens, (blocks, at_once), FLOATS, TOKENS, NUMBER, NUMBER)
    chunks = address(_chunks, (way, kind, path), NUMBER, ROWS, TOKENS, FLOATS, NUMBER, NUMBER)
    return blocks, max(at_once, WAYS[way].TOKENS), rounding, chunks


@cache
def _compiled():
    return entry(_multiply, (), *[NUMBER] * 4, SIZES, ROWS, FLOATS, FLOATS, NUMBER, NUMBER)


def product(way, kind, path, rows, x, out):
    """Packed rows times tokens, in integers as llama.cpp multiplies them. Twin of the function of ops.ggml_product named `path`.

    way   a name of WAYS
    kind  a name of a packed type (contract.TYPES)
    path  a function of ops.ggml_product that the way has
    rows  [O, bytes] uint8
    x     [T, I] float32
    out   [T, O] float32, C-contiguous: overwritten
    """
    rows, x = np.ascontiguousarray(rows, np.uint8), np.ascontiguousarray(x, np.float32)
    assert out.flags.c_contiguous
    assert out.dtype == np.float32
    assert out.shape == (len(x), len(rows))
    threads = get_num_threads()
    chunk = max(LEAST, min(CHUNK, len(rows) // (4 * threads) // LEAST * LEAST), worth(NANOSECONDS * x.size) // LEAST * LEAST)
    blocks, together, rounding, multiplying = compiled(way, kind, path)
    chunks = max((len(rows) - LEAST) // chunk + 1, 1)
    _compiled()(all_threads(), threads, rounding, multiplying, sizes(blocks, together, *x.shape), rows, x, out, chunk, chunks)
