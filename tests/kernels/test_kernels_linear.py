import numba
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from strategies import seeds
from test_contract import random_rows

from refmodel import numerics
from refmodel.kernels import linear as kernels
from refmodel.ops.linear import linear as op
from refmodel.quants import QUANTS, dequantize


class Packed:
    """A Matrix of finite random weights."""

    def __init__(self, kind, seed, O, blocks):
        quant, r = QUANTS[kind], np.random.default_rng(seed)
        self.type, self.shape = kind, (O, blocks * quant.WEIGHTS)
        self.rows = r.integers(0, 256, (O, blocks * quant.BLOCK.itemsize), np.uint8)
        view = self.rows.view(quant.BLOCK)
        for name in quant.BLOCK.names:
            if quant.BLOCK[name].kind == "f":
                view[name] = r.uniform(0.01, 1, view[name].shape)
        self.rows.setflags(write=False)


def exact_product(w, x):
    return x.astype(float) @ dequantize(w.type, w.rows).astype(float).T


def size_of_sums(w, x):
    """Σ |x w|: rounding is in proportion to it, whatever cancels. Partial sums of 8 and more lanes keep the factor below 8."""
    return np.abs(x).astype(float) @ np.abs(dequantize(w.type, w.rows)).astype(float).T


KINDS = [GGMLQuantizationType[name] for name in kernels.DECODERS]
OTHERS = [GGMLQuantizationType.F32, GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q3_K]


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


def test_bits_do_not_depend_on_the_number_of_threads():
    w = Packed(GGMLQuantizationType.Q6_K, 1, 300, 3)
    x = np.random.default_rng(1).standard_normal((5, w.shape[1])).astype(np.float32)
    before, results = numba.get_num_threads(), []
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            results.append(numerics.linear(w, x))
    finally:
        numba.set_num_threads(before)
    for result in results:
        same_bits(result, results[0])


def test_a_matrix_larger_than_a_panel(monkeypatch):
    monkeypatch.setattr(kernels, "PANEL", 1024)
    w = Packed(GGMLQuantizationType.Q8_0, 3, 23, 4)
    x = np.random.default_rng(3).standard_normal((2, w.shape[1])).astype(np.float32)
    assert (np.abs(numerics.linear(w, x) - exact_product(w, x)) <= 8 * np.finfo(np.float32).eps * size_of_sums(w, x)).all()
