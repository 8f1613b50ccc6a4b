"""Products straight from packed rows: every type, any number of rows, the bits of the NumPy definition."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from strategies import seeds
from test_kernels_linear import Packed

from refmodel.kernels.blocks import TYPES
from refmodel.kernels.columns import columns
from refmodel.kernels.panels import panels
from refmodel.ops import ggml_product as ops
from refmodel.ops.ggml import fma
from refmodel.quants import QUANTS, integers, q8_0, q8_k

f32 = np.float32
SUPER = [name for name in TYPES if QUANTS[Q[name]].WEIGHTS == 256]
SMALL = [name for name in TYPES if name not in SUPER]


def packed(name, seed, O, blocks):
    w = Packed(Q[name], seed, O, blocks)
    if name == "MXFP4":  # exponents near one, the smallest, and the largest
        w.rows = w.rows.copy()
        exponents = w.rows.reshape(O, blocks, 17)[:, :, 0]
        exponents[:] = np.random.default_rng(seed).choice([0, 1, 2, 120, 127, 135], exponents.shape)
    return w


def tokens(seed, T, I):
    return np.random.default_rng(seed).standard_normal((T, I)).astype(f32)


def sums(a, group):
    return a.codes.reshape(len(a.d), -1, group).sum(axis=-1, dtype=np.int16)


def blocks_with_minima(w, a):
    """One number over all blocks of 32, the scale of the weights first: what super_blocks is for 256."""
    dots = ops.dots_of_four(w, a).sum(axis=-1).astype(f32)
    acc = np.zeros(dots.shape[:2], f32)
    for n in range(dots.shape[2]):
        value = w.d[:, n] * dots[:, :, n]
        if w.dmin.size:
            below = a.codes[:, n].sum(axis=-1, dtype=np.int32).astype(f32)[:, None]
            value = fma(-w.dmin[:, n], np.broadcast_to(below, value.shape), value)
        acc = fma(value, a.d[:, n, None], acc)
    return acc


def test_the_types_say_of_themselves_what_their_layouts_say():
    assert set(TYPES) == {kind.name for kind in QUANTS}
    for name, of in TYPES.items():
        quant = QUANTS[Q[name]]
        assert (quant.BLOCK.itemsize, quant.WEIGHTS) == (of.BLOCK, of.WEIGHTS)
        w = integers(Q[name], packed(name, 1, 2, 2).rows)
        assert w.scales.shape[-1] == of.WEIGHTS // of.GROUP
        assert (of.M >= 0) == bool(w.dmin.size)
        largest = int(np.abs(w.codes.astype(int) + of.OFFSET).max())
        assert 2 * of.FLUSH * largest * 127 < 2**15  # sums of products fit 16 bits


@pytest.mark.parametrize("name", TYPES)
@given(seed=seeds(), O=st.integers(1, 40), blocks=st.integers(1, 5))
def test_one_token_has_the_bits_of_the_definition(name, seed, O, blocks):
    w, out = packed(name, seed, O, blocks), np.empty(O, f32)
    a = (q8_k if name in SUPER else q8_0).quantize(tokens(seed, 1, w.shape[1]))
    columns(name, "super_blocks", w.rows, a.codes[0].ravel(), a.d[0], sums(a, TYPES[name].GROUP)[0], out)
    p = integers(w.type, w.rows)
    same_bits(out, (ops.super_blocks(p, a) if name in SUPER else blocks_with_minima(p, a))[0])


@pytest.mark.parametrize("O", [255, 257, 600])
@pytest.mark.parametrize("name", ["Q4_K", "Q5_0"])
def test_rows_are_claimed_in_chunks_and_none_is_left_out(name, O):
    w, out = packed(name, 3, O, 1), np.full(O, np.nan, f32)
    a = (q8_k if name in SUPER else q8_0).quantize(tokens(3, 1, w.shape[1]))
    columns(name, "super_blocks", w.rows, a.codes[0].ravel(), a.d[0], sums(a, TYPES[name].GROUP)[0], out)
    p = integers(w.type, w.rows)
    same_bits(out, (ops.super_blocks(p, a) if name in SUPER else blocks_with_minima(p, a))[0])


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("name", SUPER)
@given(seed=seeds(), O=st.integers(1, 40), groups=st.integers(1, 2), blocks=st.integers(1, 3))
def test_many_tokens_have_the_bits_of_the_definition(name, together, seed, O, groups, blocks):
    w, T = packed(name, seed, O, blocks), groups * together
    a, out = q8_k.quantize(tokens(seed, T, w.shape[1])), np.empty((T, O), f32)
    q = a.codes.reshape(groups, together, blocks, 64, 4).transpose(2, 0, 3, 1, 4)
    below = sums(a, TYPES[name].GROUP).reshape(groups, together, blocks, -1, 2).transpose(2, 0, 3, 1, 4)
    panels(name, together, w.rows, np.ascontiguousarray(q), np.ascontiguousarray(a.d.T), np.ascontiguousarray(below), out)
    same_bits(out, ops.super_blocks(integers(w.type, w.rows), a))
