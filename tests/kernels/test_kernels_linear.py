import numba
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from strategies import seeds
from test_contract import random_rows

from refmodel.kernels import linear as kernels
from refmodel.numerics import plain as numerics
from refmodel.ops.linear import linear as op
from refmodel.quants import LAYOUTS, dequantize


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
        if kind is GGMLQuantizationType.BF16:  # its floats are declared as integers
            view["x"] = r.uniform(0.01, 1, view.shape).astype(np.float32).view(np.uint32) >> 16
        self.rows.setflags(write=False)


def exact_product(w, x):
    return x.astype(float) @ dequantize(w.type, w.rows).astype(float).T


def size_of_sums(w, x):
    """Σ |x w|: rounding is in proportion to it, whatever cancels. Partial sums of 8 and more lanes keep the factor below 8."""
    return np.abs(x).astype(float) @ np.abs(dequantize(w.type, w.rows)).astype(float).T


KINDS = [GGMLQuantizationType[name] for name in kernels.DECODERS]
OTHERS = [GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q3_K]  # no kernel decodes them


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(seed=seeds())
def test_decoding_has_the_bits_of_its_twin(kind, seed):
    rows = random_rows(kind, seed)
    want = dequantize(kind, rows)
    out = np.empty_like(want)
    kernels.DECODERS[kind.name](rows, out)
    number = ~np.isnan(want)
    same_bits(np.isnan(out), ~number)
    same_bits(out[number], want[number])


@pytest.mark.parametrize("kind", KINDS + OTHERS, ids=lambda kind: kind.name)
@given(seed=seeds(), T=st.integers(1, 9), O=st.integers(1, 9), dtype=st.sampled_from([np.float32, np.float64]))
def test_linear_is_the_product_with_the_decoded_matrix(kind, seed, T, O, dtype):
    w = Packed(kind, seed, O, 2)
    x = np.random.default_rng(seed).standard_normal((T, w.shape[1])).astype(dtype)
    for linear in (op, numerics.linear):
        got = linear(w, x)
        assert got.dtype == dtype
        assert (np.abs(got - exact_product(w, x)) <= 8 * np.finfo(dtype).eps * size_of_sums(w, x)).all()


@given(seed=seeds(), T=st.integers(2, 9), cut=st.integers(1, 8), dtype=st.sampled_from([np.float32, np.float64]))
def test_bits_depend_on_row_and_token_alone(seed, T, cut, dtype):
    w = Packed(GGMLQuantizationType.Q4_K, seed, 9, 2)
    x = np.random.default_rng(seed).standard_normal((T, 512)).astype(dtype)
    whole, cut = numerics.linear(w, x), min(cut, T - 1)
    same_bits(np.concatenate([numerics.linear(w, x[:cut]), numerics.linear(w, x[cut:])]), whole)
    fewer = Packed(w.type, seed, 9, 2)
    fewer.rows, fewer.shape = w.rows[cut:], (9 - cut, 512)
    same_bits(numerics.linear(fewer, x), np.ascontiguousarray(whole[:, cut:]))


@pytest.fixture(params=range(1, numba.config.NUMBA_NUM_THREADS + 1), ids=lambda n: f"{n} threads")
def threads(request):
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("I", [1, 7, 31, 33, 256, 577])
def test_bits_of_a_product_depend_on_row_and_token_alone(threads, I, dtype):
    """The bits of any part, in its own array or in columns of a wider one, are those of one row times one token."""
    r = np.random.default_rng(I)
    panel, x = r.standard_normal((11, I)).astype(np.float32), r.standard_normal((9, I)).astype(dtype)
    alone = np.empty((9, 11), dtype)
    for t, o in np.ndindex(alone.shape):
        kernels.product(panel[o : o + 1], x[t : t + 1], alone[t : t + 1, o : o + 1])
    for T, first, last in [(T, first, last) for T in range(1, 10) for first, last in [(0, 11), (1, 3), (4, 11)]]:
        own, wide = np.empty((T, last - first), dtype), np.empty((T, 11), dtype)
        kernels.product(panel[first:last], x[:T], own)
        kernels.product(panel[first:last], x[:T], wide[:, first:last])
        same_bits(own, alone[:T, first:last])
        same_bits(wide[:, first:last], alone[:T, first:last])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bits_depend_on_neither_threads_nor_panels(monkeypatch, kind, dtype):
    w = Packed(kind, 1, 300, 768 // LAYOUTS[kind].WEIGHTS)
    x = np.random.default_rng(1).standard_normal((5, w.shape[1])).astype(dtype)
    before, results = numba.get_num_threads(), []
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            for rows in (1, 7, 299, 300):
                monkeypatch.setattr(kernels, "PANEL", rows * w.shape[1])
                results.append(numerics.linear(w, x))
    finally:
        numba.set_num_threads(before)
    for result in results:
        same_bits(result, results[0])


@given(seed=seeds(), I=st.integers(1, 2000), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_product_is_near_the_exact_one(seed, I, dtype):
    r = np.random.default_rng(seed)
    panel, x = r.standard_normal((16, I)).astype(np.float32), r.standard_normal((7, I)).astype(dtype)
    got = np.empty((7, 16), dtype)
    kernels.product(panel, x, got)
    exact = x.astype(np.longdouble) @ panel.astype(np.longdouble).T
    near(got, exact, ulps=4)


def test_a_matrix_larger_than_a_panel(monkeypatch):
    monkeypatch.setattr(kernels, "PANEL", 1024)
    w = Packed(GGMLQuantizationType.Q8_0, 3, 23, 4)
    x = np.random.default_rng(3).standard_normal((2, w.shape[1])).astype(np.float32)
    assert (np.abs(numerics.linear(w, x) - exact_product(w, x)) <= 8 * np.finfo(np.float32).eps * size_of_sums(w, x)).all()
