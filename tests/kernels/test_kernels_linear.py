"""Whole tensors as floats, and products with tokens that keep all their bits: every type, any sizes, any threads."""

import numba
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from shares import name_of, only
from strategies import activations, seeds
from test_contract import random_rows

from refmodel.kernels.floats import dequantize as decode
from refmodel.kernels.floats import product as kernels
from refmodel.numerics import reference as numerics
from refmodel.ops.ggml_floats import ORDERS
from refmodel.ops.linear import eight_lanes
from refmodel.ops.linear import linear as op
from refmodel.quants import LAYOUTS, dequantize

Q = GGMLQuantizationType


class Packed:
    """A Matrix of finite random weights."""

    def __init__(self, kind, seed, O, blocks):
        quant, r = LAYOUTS[kind], np.random.default_rng(seed)
        self.type, self.shape = kind, (O, blocks * quant.WEIGHTS)
        self.rows = r.integers(0, 256, (O, blocks * quant.BLOCK.itemsize), np.uint8)
        view = self.rows.view(quant.BLOCK)
        for name in quant.BLOCK.names:
            if quant.BLOCK[name].kind == "f":
                view[name] = r.uniform(0.01, 1, view[name].shape)
        if kind is Q.BF16:  # its floats are declared as integers
            view["x"] = r.uniform(0.01, 1, view.shape).astype(np.float32).view(np.uint32) >> 16
        if kind is Q.MXFP4:  # exponents near one
            self.rows.reshape(O, blocks, -1)[:, :, 0] = r.integers(120, 130, (O, blocks))
        self.rows.setflags(write=False)


def exact_product(w, x):
    return x.astype(float) @ dequantize(w.type, w.rows).astype(float).T


def size_of_sums(w, x):
    """Σ |x w|: rounding is in proportion to it, whatever cancels. Partial sums of 8 and more lanes keep the factor below 8."""
    return np.abs(x).astype(float) @ np.abs(dequantize(w.type, w.rows)).astype(float).T


KINDS = [Q[name] for name in decode.KINDS]
MULTIPLIED = pytest.mark.parametrize("kind", only(KINDS, Q.Q4_K, Q.Q6_K, Q.Q8_0, Q.F32, Q.BF16), ids=name_of)
SOME = pytest.mark.parametrize("kind", only([Q.Q4_K, Q.Q6_K, Q.Q8_0, Q.F32, Q.BF16], Q.Q4_K, Q.F32), ids=name_of)
FLOATS = pytest.mark.parametrize("kind", [Q[name] for name in decode.FLOATS], ids=lambda kind: kind.name)


def tokens(seed, T, w, dtype=np.float32):
    return activations(np.random.default_rng(seed), T, w.shape[1]).astype(dtype)


def matrix(kind, seed, O, blocks):
    """`blocks` of 32 or 256 weights a row; of floats some more."""
    return Packed(kind, seed, O, blocks if kind.name not in decode.FLOATS else 32 * blocks + seed % 32)


STREAMED = [(kind, large) for kind in KINDS for large in (False, True)]
SHORT = [case for case in STREAMED if not case[1]] + [(Q.Q4_K, True), (Q.Q8_0, True)]


@pytest.mark.parametrize(("kind", "large"), only(STREAMED, *SHORT), ids=name_of)
@given(seed=seeds(), start=st.integers(0, 8))
def test_a_tensor_has_the_bits_of_its_twin(kind, large, seed, start):
    """Stored as usual, and past the caches where the array begins at a multiple of 32 bytes."""
    rows = random_rows(kind, seed)
    want, space = dequantize(kind, rows), np.full(4096, 7, np.float32)
    first = -space.ctypes.data % 64 // 4 + start
    out = space[first : first + want.size].reshape(want.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "LARGE", 0 if large else 1 << 30)
        decode.dequantize(kind.name, rows, out)
    number = ~np.isnan(want)
    same_bits(np.isnan(out), ~number)
    same_bits(out[number], want[number])
    same_bits(np.delete(space, np.s_[first : first + want.size]), np.full(4096 - want.size, 7, np.float32))


def test_a_large_tensor_is_streamed(monkeypatch):
    """The kernels' part of decoded; a small tensor is not worth a compilation."""
    rows = random_rows(Q.Q8_0, 1, rows=5, blocks=7)
    want = numerics.decoded(Q.Q8_0, rows)
    monkeypatch.setattr(numerics, "LARGE", 0)
    monkeypatch.setattr(decode, "LARGE", 0)
    monkeypatch.setattr(decode, "IN_ORDER", None)  # what is not streamed fails
    number = ~np.isnan(want)
    same_bits(numerics.decoded(Q.Q8_0, rows)[number], want[number])


@MULTIPLIED
@given(seed=seeds(), T=st.integers(1, 8), O=st.integers(1, 20), blocks=st.integers(1, 4))
def test_a_product_has_the_bits_of_its_twin(kind, seed, T, O, blocks):
    w = matrix(kind, seed, O, blocks)
    x = tokens(seed, T, w)
    got = numerics.linear(w, x)
    same_bits(got, eight_lanes(w, x))
    for result in (got, op(w, x)):
        assert (np.abs(result - exact_product(w, x)) <= 8 * np.finfo(np.float32).eps * size_of_sums(w, x)).all()


@SOME
@given(seed=seeds(), T=st.integers(1, 8), O=st.integers(1, 20))
def test_a_product_of_doubles_is_near_the_exact_one(kind, seed, T, O):
    w = matrix(kind, seed, O, 3)
    x = tokens(seed, T, w, np.float64)
    got = numerics.linear(w, x)
    assert got.dtype == np.float64
    assert (np.abs(got - exact_product(w, x)) <= 8 * np.finfo(np.float64).eps * size_of_sums(w, x)).all()


@FLOATS
@given(seed=seeds(), T=st.integers(1, 8), O=st.integers(1, 20), I=st.integers(1, 600))
def test_the_orders_of_vec_dot_have_the_bits_of_their_definitions(kind, seed, T, O, I):
    w, order = Packed(kind, seed, O, I), f"dot_{kind.name.lower()}"
    x, out = tokens(seed, T, w), np.full((T, O), np.nan, np.float32)
    kernels.product(kind.name, order, w.rows, x, out)
    same_bits(out, ORDERS[order](dequantize(kind, w.rows)[None], x[:, None]))


@FLOATS
@given(seed=seeds(), O=st.integers(1, 20), blocks=st.integers(1, 20))
def test_so_have_those_of_one_token_and_whole_blocks(kind, seed, O, blocks):
    w, order = Packed(kind, seed, O, 32 * blocks), f"dot_{kind.name.lower()}"
    x, out = tokens(seed, 1, w), np.full((1, O), np.nan, np.float32)
    kernels.product(kind.name, order, w.rows, x, out)
    same_bits(out, ORDERS[order](dequantize(kind, w.rows)[None], x[:, None]))


def test_a_type_that_no_kernel_knows_is_decoded_panel_by_panel(monkeypatch):
    monkeypatch.setattr(numerics, "PANEL", 1024)
    monkeypatch.setattr(numerics, "KINDS", {})
    w = Packed(Q.F32, 1, 7, 256)
    x = tokens(1, 3, w)
    same_bits(numerics.linear(w, x), eight_lanes(w, x))


@SOME
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds(), T=st.integers(2, 9), cut=st.integers(1, 8))
def test_bits_depend_on_row_and_token_alone(kind, dtype, seed, T, cut):
    w = matrix(kind, seed, 19, 3)
    x = tokens(seed, T, w, dtype)
    whole, cut = numerics.linear(w, x), min(cut, T - 1)
    same_bits(np.concatenate([numerics.linear(w, x[:cut]), numerics.linear(w, x[cut:])]), whole)
    fewer = matrix(kind, seed, 19, 3)
    fewer.rows, fewer.shape = w.rows[cut:], (19 - cut, w.shape[1])
    same_bits(numerics.linear(fewer, x), np.ascontiguousarray(whole[:, cut:]))


@SOME
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_depend_on_neither_threads_nor_chunks(monkeypatch, kind, dtype):
    w = matrix(kind, 1, 300, 3)
    one, five, before = tokens(1, 1, w, dtype), tokens(1, 5, w, dtype), numba.get_num_threads()
    want = numerics.linear(w, one), numerics.linear(w, five)
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            for rows, count in ((8, 1), (16, 4), (512, 5)):
                monkeypatch.setattr(kernels, "CHUNK", rows)
                monkeypatch.setattr(kernels, "TOKENS", count)
                same_bits(numerics.linear(w, one), want[0])
                same_bits(numerics.linear(w, five), want[1])
    finally:
        numba.set_num_threads(before)


@given(seed=seeds(), I=st.integers(1, 2000), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_product_is_near_the_exact_one(seed, I, dtype):
    w = Packed(Q.F32, seed, 16, I)
    w.rows = np.random.default_rng(seed).standard_normal((16, I)).astype(np.float32).view(np.uint8)
    x = tokens(seed, 7, w, dtype)
    near(numerics.linear(w, x), x.astype(np.longdouble) @ w.rows.view(np.float32).astype(np.longdouble).T, ulps=4)
