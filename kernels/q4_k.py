"""Twin of quants.q4_k: rows of packed blocks -> float32, bit for bit; and rows times 8-bit activations."""

import numpy as np
from numba import njit, prange

from .half import half
from .k_scales import scale_and_minimum
from .simd import (
    Vec,
    bitcast,
    concat,
    convert,
    dot2_i16,
    dot2_u8i8,
    fma,
    fold,
    load_columns,
    load_repeated,
    part,
    shuffle,
    splat,
    store,
)

BLOCK = 144  # bytes: d and dmin (f16), 12 of packed scales and minima, 128 of codes


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 256):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 256 * b : 256 * (b + 1)]
            d, dmin = half(block[0], block[1]), half(block[2], block[3])
            for j in range(8):
                scale, minimum = scale_and_minimum(block[4:16], j)
                s, m = d * np.float32(scale), dmin * np.float32(minimum)
                codes, part, shift = (
                    block[16 + 32 * (j // 2) : 48 + 32 * (j // 2)],
                    to[32 * j : 32 * j + 32],
                    4 * (j % 2),
                )
                for i in range(32):
                    part[i] = s * np.float32((codes[i] >> shift) & 15) - m


u8x32, u8x128, u8x256 = (Vec("u", 8, lanes) for lanes in (32, 128, 256))
i16x16, i16x64 = Vec("i", 16, 16), Vec("i", 16, 64)
i8x256, u16x8, u32x8, i32x8 = Vec("i", 8, 256), Vec("u", 16, 8), Vec("u", 32, 8), Vec("i", 32, 8)
f16x8, f32x8 = Vec("f", 16, 8), Vec("f", 32, 8)


def _bytes_of_each_word(*chosen):
    """Lanes that widen the chosen bytes of every 4-byte word to i16, with zeros from a second vector."""
    return tuple(lane for word in range(0, 32, 4) for byte in chosen for lane in (word + byte, 32))


BYTE_0, BYTE_1, BYTE_2, BYTE_3 = (_bytes_of_each_word(k, k) for k in range(4))
BYTES_01, BYTES_23 = _bytes_of_each_word(0, 1), _bytes_of_each_word(2, 3)


@njit(forceinline=True)
def _widened(words, chosen):
    return bitcast(i16x16, shuffle(words, splat(u8x32, 0), chosen))


@njit(forceinline=True)
def _halves(words):
    """The f16 in the lower half of every word, as f32."""
    return convert(f32x8, bitcast(f16x8, convert(u16x8, words)))


@njit(forceinline=True)
def _scales_and_minima(header):
    """Of eight rows, bytes 4 to 15 of the block turned into columns: eight scales and eight minima each."""
    scales, minima, high = part(header, 4, 1), part(header, 4, 2), part(header, 4, 3)
    return (
        concat(scales & 63, (high & 15) | (scales >> 6 << 4)),
        concat(minima & 63, (high >> 4) | (minima >> 6 << 4)),
    )


@njit(forceinline=True)
def _in_pairs(minima):
    """Eight minima of eight rows as i16: lanes [4][8 rows][2]."""
    a, b = part(minima, 2, 0), part(minima, 2, 1)
    return concat(concat(_widened(a, BYTES_01), _widened(a, BYTES_23)), concat(_widened(b, BYTES_01), _widened(b, BYTES_23)))


@njit(forceinline=True)
def _dot_64(rows, at, stride, q, q_at, low_scale, high_scale):
    """Scaled products of 64 weights of eight rows: 32 bytes, weight k in the low and k + 32 in the high half."""
    both = load_columns(u8x256, rows, at, stride)
    low = dot2_u8i8(both & 15, load_repeated(i8x256, 8, q, q_at))
    high = dot2_u8i8(both >> 4, load_repeated(i8x256, 8, q, q_at + 32))
    return dot2_i16(fold(i16x16, low), low_scale) + dot2_i16(fold(i16x16, high), high_scale)


@njit
def eight_rows(rows, first, stride, blocks, q, d, sums, result):
    """The path sums_of_q4_k for eight rows, `stride` bytes apart; rows are lanes. sums: of 32 codes each, int16 [8 N]."""
    total, offset = splat(f32x8, 0), splat(f32x8, 0)
    for n in range(blocks):
        at, q_at = first + BLOCK * n, 256 * n
        header = load_columns(u8x128, rows, at, stride)
        scales, minima = _scales_and_minima(header)
        a, b = part(scales, 2, 0), part(scales, 2, 1)
        dot = _dot_64(rows, at + 16, stride, q, q_at, _widened(a, BYTE_0), _widened(a, BYTE_1))
        dot += _dot_64(rows, at + 48, stride, q, q_at + 64, _widened(a, BYTE_2), _widened(a, BYTE_3))
        dot += _dot_64(rows, at + 80, stride, q, q_at + 128, _widened(b, BYTE_0), _widened(b, BYTE_1))
        dot += _dot_64(rows, at + 112, stride, q, q_at + 192, _widened(b, BYTE_2), _widened(b, BYTE_3))
        below = fold(i32x8, dot2_i16(_in_pairs(minima), load_repeated(i16x64, 8, sums, 16 * n)))
        deltas = bitcast(u32x8, part(header, 4, 0))
        total = fma(convert(f32x8, dot), _halves(deltas) * d[n], total)
        offset = fma(convert(f32x8, below), _halves(deltas >> 16) * d[n], offset)
    store(result, 0, total - offset)
