"""Operations of a layout: each does to every row's bytes what NumPy does, wherever the layout keeps them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from numba import njit
from strategies import seeds

from refmodel.kernels.language.arithmetic import hsums
from refmodel.kernels.language.memory import load, store
from refmodel.kernels.language.row_layout import (
    FOUR_ROWS,
    ROW,
    SIXTEEN_ROWS,
    TWO_ROWS,
    Block,
    beside,
    columns,
    outermost,
    piece,
    spread_bits,
    take,
    two_fields,
)
from refmodel.kernels.language.vectors import Vec

LAYOUTS = {"row": ROW, "two rows": TWO_ROWS, "four rows": FOUR_ROWS, "eight columns": columns(8), "sixteen columns": SIXTEEN_ROWS}
each = pytest.mark.parametrize("name", LAYOUTS)
f32x16 = Vec("f", 32, 16)


@njit
def _taken(layout, data, stride, out):
    store(out, 0, take(Block(layout, data, np.int64(0), stride), 16, 0))


@njit
def _apart(layout, data, stride, first, second, out):
    store(out, 0, two_fields(layout, take(Block(layout, data, np.int64(0), stride), 16, 0), first, second, 12))


@njit
def _joined(layout, data, stride, out):
    v = take(Block(layout, data, np.int64(0), stride), 16, 0)
    store(out, 0, beside(layout, piece(layout, v, 4, 3), piece(layout, v, 4, 1)))


@njit
def _bits(layout, data, stride, out):
    store(out, 0, spread_bits(layout, take(Block(layout, data, np.int64(0), stride), 4, 0)))


@njit
def _outermost(layout, data, stride, out):
    store(out, 0, outermost(layout, take(Block(layout, data, np.int64(0), stride), 16, 0), 4))


@njit
def _hsums(x, out):
    store(out, 0, hsums(load(f32x16, x, 0), 2))


def done(kernel, name, seed, size, *arguments):
    """(the rows' bytes [R, 16], what the kernel made of each [R, size])."""
    layout = LAYOUTS[name]
    kind, R = layout.value
    memory = np.random.default_rng(seed).integers(0, 256, R * 24, np.uint8)  # rows lie 24 bytes apart
    out = np.zeros(R * size, np.uint8)
    kernel(layout, memory, 24, *arguments, out)
    by_row = out.reshape(-1, R, 4).transpose(1, 0, 2).reshape(R, size) if kind == "columns" else out.reshape(R, size)
    return memory.reshape(R, 24)[:, :16], by_row


@each
@given(seed=seeds())
def test_take(name, seed):
    same_bits(*done(_taken, name, seed, 16))


@each
@given(seed=seeds())
def test_beside_and_piece(name, seed):
    rows, got = done(_joined, name, seed, 8)
    same_bits(got, np.concatenate([rows[:, 12:16], rows[:, 4:8]], axis=1))


@each
@given(seed=seeds(), first=st.integers(-2, 4), second=st.integers(-2, 4))
def test_two_fields(name, seed, first, second):
    """With a mask of two bits, 2 and 3: they come from the byte itself as long as both stay in it."""
    rows, got = done(_apart, name, seed, 32, first, second)
    moved = [(rows >> n if n >= 0 else rows << -n) & 12 for n in (first, second)]
    same_bits(got, np.concatenate(moved, axis=1).astype(np.uint8))


@each
@given(seed=seeds())
def test_spread_bits(name, seed):
    rows, got = done(_bits, name, seed, 32)
    places = np.unpackbits(rows[:, :4], axis=1, bitorder="little")
    same_bits(got, (places << np.arange(32) % 8).astype(np.uint8))


@pytest.mark.parametrize("name", ["row", "two rows", "four rows"])
@given(seed=seeds())
def test_outermost(name, seed):
    rows, got = done(_outermost, name, seed, 16)
    same_bits(got.ravel(), rows.reshape(-1, 4, 4).transpose(1, 0, 2).ravel())


@given(seed=seeds())
def test_hsums_add_halves_of_each_part(seed):
    x, out = np.random.default_rng(seed).standard_normal(16).astype(np.float32), np.zeros(2, np.float32)
    _hsums(x, out)
    parts = x.reshape(2, 8)
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        parts = parts[:, half:] + parts[:, :half]
    same_bits(out, parts[:, 0])
