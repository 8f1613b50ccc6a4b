"""Tokens rounded to 8 bits, as the ways of product.py read them. Twins: `quantize` of quants.q8_0, quants.q8_1 and quants.q8_k.

`at_once` tokens, which are multiplied at once, lie side by side; T' is T, filled up with zeros:

  q     [N, T' / at_once, W / 4, at_once, 4] int8, flat     codes
  d     [N, T'] float32                                 the scale of each block
  sums  [N, T' / at_once, pairs, at_once, 2] int16, flat    Σ code under each scale of the weights
  s     [N, T'] float32                                 the sums of Q8_1
"""

import numpy as np
from numba import njit, types

from ..language.arithmetic import hsums, largest
from ..language.compile_time import made, maker, within
from ..language.ieee import float_of, to_half
from ..language.memory import load, store
from ..language.reshaping import bitcast, convert, splat
from ..language.vectors import Vec, i8, i32, u32
from ..types.contract import packed

f32x32 = Vec("f", 32, 32)
ROUND = np.float32(3 << 22)  # once added and taken away, a small number is a whole one: ties to even


def token_blocks(kind):
    """What of a type matters to its tokens: (weights, group, whether they have s). Types that agree in it share compiled code."""
    of = packed(kind)
    return of.weights, of.group, of.minima and of.weights == 32


SIZES = types.UniTuple(types.int64, 4)
SCALES = types.Array(types.float32, 2, "C")
TOKENS = types.Tuple([types.Array(types.int8, 1, "C"), SCALES, types.Array(types.int16, 1, "C"), SCALES])  # q, d, sums, s


def sizes(blocks, together, tokens, width):
    """The room for `tokens` tokens of `width` numbers, filled up to a multiple of `together`: the sizes of q and sums, N and T'."""
    (weights, group, _), whole = blocks, -(-tokens // together) * together
    N = width // weights
    return width * whole, (weights // group + 1) // 2 * 2 * N * whole, N, whole


@within
def room(sizes):
    """Zeros for q, d, sums and s of these `sizes`."""
    codes, sums, N, T = sizes
    return np.zeros(codes, np.int8), np.zeros((N, T), np.float32), np.zeros(sums, np.int16), np.zeros((N, T), np.float32)


@within
def _furthest(x, at):
    """The largest magnitude of 32 numbers, as its bits."""
    return largest(bitcast(u32, load(f32x32, x, at)) & 0x7FFFFFFF)


@within
def q8_0(x, at):
    """Of the 32 numbers of x at the byte `at`: the factor that makes codes, their scale, and that scale before rounding."""
    far = float_of(_furthest(x, at))
    factor = np.float32(127) / far if far != 0 else np.float32(0)
    exact = far / np.float32(127)
    return factor, to_half(exact), exact


@within
def q8_k(x, at):
    """The same of 256 numbers; their scale is not rounded."""
    far = np.uint32(0)
    for p in range(8):
        far = max(far, _furthest(x, at + 128 * p))
    furthest, flat = float_of(far), x.reshape(-1)
    for i in range(at // 4, at // 4 + 256):
        if abs(flat[i]) == furthest:  # of several the first gives the sign
            furthest = flat[i]
            break
    factor = np.float32(-127) / furthest if furthest != 0 else np.float32(0)
    limit = -furthest if furthest != 0 else np.float32(0)  # of an infinite number, or of zeros; Numba does not divide by zero
    d = np.float32(1) / factor if factor != 0 else limit
    return factor, d, d


@maker
def rounding(blocks, at_once):
    """The function (x, t, n, tokens) that rounds block n of token t of x [T, I] into `tokens`; `at_once` lie side by side."""
    weights, group, has_s = blocks
    each, pairs = 32 // group, (weights // group + 1) // 2  # groups of 32 weights
    scale = q8_k if weights == 256 else q8_0

    @within
    def round_block(x, t, n, tokens):
        q, d, sums, s = tokens
        start, place, lane = 4 * (t * x.shape[1] + weights * n), n * (d.shape[1] // at_once) + t // at_once, t % at_once
        factor, d[n, t], exact = scale(x, start)
        for p in range(weights // 32):
            whole = convert(i32, (load(f32x32, x, start + 128 * p) * factor + ROUND) - ROUND)
            words, totals = bitcast(u32, convert(i8, whole)), hsums(whole, each)
            for k in range(8):
                store(q, 4 * ((weights // 4 * place + 8 * p + k) * at_once + lane), splat(u32, words[k]))
            for g in range(each * p, each * p + each):
                sums[2 * ((pairs * place + g // 2) * at_once + lane) + g % 2] = totals[g - each * p]
            if has_s:
                s[n, t] = to_half(exact * np.float32(totals[0]))

    return round_block


round_block = made(rounding)


@njit(cache=True)
def round_tokens(blocks, at_once, x, tokens, first, last):
    """Round the tokens `first` to `last` of x [T, I] into `tokens`."""
    of_block = round_block(blocks, at_once)
    for t in range(first, last):
        for n in range(len(tokens[1])):
            of_block(x, t, n, tokens)
