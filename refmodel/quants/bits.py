"""Fields of bits that several block layouts share."""

import numpy as np

from ..arrays import F32, Bytes, NDInt


def nibbles(qs: Bytes) -> NDInt:
    """[..., n] bytes -> [..., 2 n] numbers 0..15: all low halves, then all high halves."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1).astype(np.int8)


def fifth_bits(qh: Bytes) -> NDInt:
    """[..., 4] bytes, a little-endian u32 -> [..., 32]: 16 where bit e is set, else 0."""
    return (np.unpackbits(qh, axis=-1, bitorder="little") << 4).astype(np.int8)


def f32(half: F32) -> F32:
    """A field of half floats as float32, of the same shape; exact."""
    return half.astype(np.float32)


def scales_and_minima(packed: Bytes) -> tuple[NDInt, NDInt]:
    """The 12 bytes [..., 12] of Q4_K and Q5_K -> eight 6-bit scales and eight 6-bit minima, [..., 8] each.

    Bytes 0..3 hold scales 0..3 and, in their upper two bits, the top of scales 4..7; bytes 4..7 the same for minima;
    bytes 8..11 hold the low four bits of scales 4..7 (low half) and of minima 4..7 (high half). Source: get_scale_min_k4.
    """
    first, second, third = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=-1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=-1)
    return scales.astype(np.int16), minima.astype(np.int16)
