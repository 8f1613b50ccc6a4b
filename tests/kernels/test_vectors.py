"""The vector language: every operation does in each lane what NumPy does in each element, also without the x86 instructions."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from numba import njit
from strategies import seeds

from refmodel.kernels.language.arithmetic import (
    fma,
    fma_of_halves,
    fold,
    halves_added,
    hsum,
    largest,
    neighbours_added,
    rounded_to_half,
)
from refmodel.kernels.language.dots import FACTOR, dot2_i16, dot2_u8i8, dots_onto, no_sums, scaled
from refmodel.kernels.language.memory import load, load_repeated, load_rows, store, store_past_caches, store_rows
from refmodel.kernels.language.reshaping import (
    bitcast,
    chosen,
    concat,
    convert,
    cut,
    odds,
    repeat,
    splat,
    tile,
    where_less,
    wide,
)
from refmodel.kernels.language.vectors import Vec, u32
from refmodel.ops import ieee
from refmodel.ops.ieee import half

u8x16, u8x32, u8x64, u8x128 = (Vec("u", 8, n) for n in (16, 32, 64, 128))
i8x32, i8x64, i16x16, i16x32, i32x8, i32x16 = (Vec("i", b, n) for b, n in ((8, 32), (8, 64), (16, 16), (16, 32), (32, 8), (32, 16)))
f32x4, f32x8, f32x16, f32x32, f16x8 = Vec("f", 32, 4), Vec("f", 32, 8), Vec("f", 32, 16), Vec("f", 32, 32), Vec("f", 16, 8)
u32x32 = Vec("u", 32, 32)
f64 = Vec("f", 64, 1)


def data(seed, n=512):
    return np.random.default_rng(seed).integers(0, 256, n, np.uint8)


def floats(seed, n):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@njit
def _integers(a, b, out):
    x, y = load(u8x32, a, 3), load(u8x32, b, 5)
    store(out, 0, x + y)
    store(out, 32, x - y)
    store(out, 64, x & y)
    store(out, 96, x | y)
    store(out, 128, x ^ y)
    store(out, 160, x >> 4)
    store(out, 192, x << 3)
    store(out, 224, x & 15)
    x += y
    store(out, 256, x)


@given(seed=seeds())
def test_operators_of_integers_wrap_around(seed):
    a, b, out = data(seed), data(seed + 1), np.zeros(288, np.uint8)
    _integers(a, b, out)
    x, y = a[3:35], b[5:37]
    want = [x + y, x - y, x & y, x | y, x ^ y, x >> 4, x << 3, x & 15, x + y]
    same_bits(out, np.concatenate(want).astype(np.uint8))


@njit
def _signed(a, out):
    x = bitcast(i16x16, load(u8x32, a, 1))
    store(out, 0, x >> 5)
    store(out, 32, x * x)
    store(out, 64, convert(i32x16, x))
    store(out, 128, convert(i32x8, cut(x, 2, 1)))


@given(seed=seeds())
def test_signed_lanes_keep_their_sign(seed):
    a, out = data(seed), np.zeros(160, np.uint8)
    _signed(a, out)
    x = a[1:33].view(np.int16)
    parts = [x >> 5, x * x, x.astype(np.int32), x[8:].astype(np.int32)]
    same_bits(out, np.concatenate([p.view(np.uint8) for p in parts]))


@njit
def _floats(a, out):
    x, y = load(f32x8, a, 0), load(f32x8, a, 32)
    store(out, 0, x + y)
    store(out, 32, x - y)
    store(out, 64, x * y)
    store(out, 96, fma(x, y, x))
    store(out, 128, x * np.float32(3))
    store(out, 160, splat(f32x8, x[2]))


@given(seed=seeds())
def test_operators_of_floats(seed):
    from refmodel.ops.ieee import fma as exact_fma

    a, out = floats(seed, 16), np.zeros(48, np.float32)
    _floats(a, out)
    x, y = a[:8], a[8:]
    same_bits(out, np.concatenate([x + y, x - y, x * y, exact_fma(x, y, x), x * np.float32(3), np.repeat(x[2], 8)]))


@njit
def _halves(a, out, n):
    for i in range(n):
        store(out, 32 * i, convert(f32x8, load(f16x8, a, 16 * i)))


def test_every_half_becomes_its_float():
    a = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(1 << 16, np.float32)
    _halves(a, out, a.size // 8)
    want = a.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(want)
    same_bits(out[numbers], want[numbers])
    assert np.isnan(out[~numbers]).all()


@njit
def _shapes(a, out):
    x = load(u8x16, a, 0)
    store(out, 0, concat(x, load(u8x16, a, 40)))
    store(out, 32, repeat(x, 2))
    store(out, 64, tile(x, 2))
    store(out, 96, odds(load(u8x32, a, 0)))
    store(out, 112, load_repeated(2, 8, a, 20))
    store(out, 176, load_rows(u8x64, 4, a, 7, 50))


@given(seed=seeds())
def test_shapes(seed):
    a, out = data(seed), np.zeros(240, np.uint8)
    _shapes(a, out)
    words = np.repeat(a[20:28].reshape(2, 1, 4), 8, axis=1)
    rows = np.stack([a[7 + 50 * r : 23 + 50 * r] for r in range(4)])
    x = a[:16]
    want = [x, a[40:56], np.repeat(x, 2), np.tile(x, 2), a[1:32:2], words.ravel(), rows.ravel()]
    same_bits(out, np.concatenate(want))


@njit
def _places(a, out, wide):
    x = load(u8x64, a, 0)
    store_rows(4, out, 3, 40, x)
    store_past_caches(wide, 0, load(f32x32, a, 5))
    store(wide, 128, convert(f64, load(f32x8, a, 64)))


@given(seed=seeds())
def test_parts_go_to_their_places(seed):
    a, out, space = data(seed), np.zeros(160, np.uint8), np.zeros(72, np.float32)
    a[64:96] = floats(seed, 8).view(np.uint8)
    aligned = space[-space.ctypes.data % 32 // 4 :][:48]
    _places(a, out, aligned)
    want = np.zeros(160, np.uint8)
    for r in range(4):
        want[3 + 40 * r : 19 + 40 * r] = a[16 * r : 16 * r + 16]
    same_bits(out, want)
    same_bits(aligned[:32].view(np.uint8), a[5:133])
    same_bits(aligned[32:].view(np.float64), a[64:96].view(np.float32).astype(np.float64))


@njit
def _products(a, b, out):
    x, y = load(u8x64, a, 0), bitcast(i8x64, load(u8x64, b, 0))
    store(out, 0, dot2_u8i8(x, y))
    v, w = bitcast(i16x32, load(u8x64, a, 64)), bitcast(i16x32, load(u8x64, b, 64))
    store(out, 64, dot2_i16(v, w))


@given(seed=seeds(), extreme=st.booleans())
def test_products(seed, extreme):
    a, b, out = data(seed), data(seed + 1), np.zeros(128, np.uint8)
    if extreme:  # pairs of u8 and i8 saturate; -32768 twice does not fit
        a[:64], b[:64] = 255, np.where(np.arange(64) % 3, 127, 128)
        a[64:128], b[64:128] = 0x7F, 0x7F
    _products(a, b, out)
    x, y = a[:64].astype(int), b[:64].view(np.int8).astype(int)
    pairs = np.clip((x * y).reshape(-1, 2).sum(1), -32768, 32767).astype(np.int16)
    v, w = a[64:128].view(np.int16).astype(int), b[64:128].view(np.int16).astype(int)
    wide = (v * w).reshape(-1, 2).sum(1).astype(np.int32)
    same_bits(out, np.concatenate([pairs.view(np.uint8), wide.view(np.uint8)]))


@njit
def _sums_of_words(a, b, factor, out):
    x, y = load(u8x128, a, 0) & 15, bitcast(i8x64, load(u8x128, b, 0))
    sums = dots_onto(no_sums(16), x, y, 2)  # two groups of two words of eight rows
    sums = dots_onto(sums, x, y, 2)
    store(out, 0, scaled(sums, load(wide(FACTOR, 16), factor, 0)))


@given(seed=seeds(), extreme=st.booleans())
def test_sums_of_words_are_exact(seed, extreme):
    a, b, out = data(seed), data(seed + 1), np.zeros(16, np.int32)
    if extreme:
        a[:128], b[:128] = 255, 127
    numbers = np.random.default_rng(seed).integers(-128, 128, 16)
    factor = np.repeat(numbers, FACTOR.lanes).astype(f"i{FACTOR.bits // 8}")
    _sums_of_words(a, b, factor, out)
    products = (a[:128].astype(int) & 15) * b[:128].view(np.int8)
    same_bits(out, (2 * products.reshape(2, 2, 8, 4).sum(axis=(1, 3)).ravel() * numbers).astype(np.int32))


@njit
def _largest(a):
    return largest(bitcast(u32, load(u8x32, a, 1)))


@given(seed=seeds())
def test_the_largest_lane(seed):
    a = data(seed)
    assert _largest(a) == a[1:33].view(np.uint32).max()


@njit
def _sums(a, out):
    x = load(f32x32, a, 0)
    store(out, 0, fold(x, 8))
    out[8] = hsum(cut(x, 4, 0))
    out[9] = hsum(fold(x, 8))


@given(seed=seeds())
def test_sums_have_a_fixed_order(seed):
    a, out = floats(seed, 32), np.zeros(10, np.float32)
    _sums(a, out)
    folded = ((a[:8] + a[8:16]) + a[16:24]) + a[24:]

    def halves(x):
        while x.size > 1:
            low, high = np.split(x, 2)
            x = high + low
        return x

    same_bits(out, np.concatenate([folded, halves(a[:8]), halves(folded)]))


@njit
def _rows_and_choices(a, out):
    x, y = load(f32x16, a, 0), load(f32x16, a, 64)
    store(out, 0, halves_added(x, 8))
    store(out, 32, neighbours_added(x))
    store(out, 64, x / y)
    store(out, 128, where_less(x, y, x, y))
    store_rows(2, out, 192, 48, x)


@given(seed=seeds())
def test_sums_within_a_vector_quotients_and_choices(seed):
    a, out = floats(seed, 32), np.zeros(68, np.float32)
    _rows_and_choices(a, out)
    x, y = a[:16], a[16:]
    halves = x.reshape(2, 2, 4).sum(axis=1).ravel()
    rows = np.concatenate([x[:8], np.zeros(4, np.float32), x[8:]])
    same_bits(out, np.concatenate([halves, x[::2] + x[1::2], x / y, np.where(x < y, x, y), rows]))


@njit
def _rounded(x, out):
    for i in range(0, x.size, 8):
        store(out, 4 * i, rounded_to_half(load(f32x8, x, 4 * i)))


def test_rounding_to_half_floats_is_numpys():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2
    x = np.concatenate([halves, between, np.nextafter(between, np.float32(0)), [65519, 65520, 1e30, np.inf, 1e-30]]).astype(
        np.float32
    )
    x = np.resize(np.concatenate([x, -x]), 6 * halves.size // 8 * 8)
    out = np.empty_like(x)
    _rounded(x, out)
    with np.errstate(over="ignore"):
        same_bits(out, x.astype(np.float16).astype(np.float32))


@njit
def _products_of_halves(a, b, c, out):
    for i in range(0, 4 * a.size, 32):
        store(out, i, fma_of_halves(load(f32x8, a, i), load(f32x8, b, i), load(f32x8, c, i)))


@given(seed=seeds())
def test_products_of_half_floats_are_rounded_once(seed):
    """Also where the product is halfway between two half floats, and the sum differs from it by less than a float32 can show."""
    r = np.random.default_rng(seed)
    a, b, c = (half(r.standard_normal(400).astype(np.float32) * np.float32(2.0) ** r.integers(-12, 5, 400)) for _ in range(3))
    a[:200], b[:200] = 1 + 2**-5, 1 + 2**-6
    c[:100] *= np.float32(2.0**-20)
    c, out = half(c), np.empty_like(a)
    _products_of_halves(a, b, c, out)
    same_bits(out, ieee.fma_of_halves(a, b, c))


@njit
def _chosen(table, which, out):
    for i in range(0, table.size, 32):
        store(out, 4 * i, chosen(load(f32x32, table, 4 * i), load(u32x32, which, 4 * i)))


def test_one_of_every_four_lanes_is_chosen_by_two_bits():
    random = np.random.default_rng(1)
    table, which = random.standard_normal(96).astype(np.float32), random.integers(0, 1 << 32, 96, np.uint32)
    out = np.empty_like(table)
    _chosen(table, which, out)
    same_bits(out, table[np.arange(96) // 4 * 4 + which % 4])


@pytest.mark.long
@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="this is the run for a processor without the x86 instructions")
def test_without_the_x86_instructions_the_bits_are_the_same():
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    files = [__file__, str(Path(__file__).with_name("test_row_layout.py"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", *files], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
