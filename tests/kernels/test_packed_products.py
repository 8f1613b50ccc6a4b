"""Products straight from packed rows: every type, way and path, any number of rows and tokens, the bits of the NumPy definition."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import given
from hypothesis import strategies as st
from near import from_python, same_bits
from shares import only, share
from strategies import activations, seeds
from test_kernels_linear import Packed, exact_product, size_of_sums

from refmodel.kernels.language.compile_time import Static
from refmodel.kernels.language.matrix_registers import TARGET_HAS_THEM
from refmodel.kernels.packed.accumulate import GROUPS_AT_ONCE, MINIMA_ALONE
from refmodel.kernels.packed.product import product
from refmodel.kernels.packed.rounded_tokens import room, round_tokens, sizes, token_blocks
from refmodel.kernels.types.contract import TYPES
from refmodel.machine import matrix_registers
from refmodel.ops import ggml_product as ops
from refmodel.ops.ggml_paths import PATHS, QUANTIZERS
from refmodel.ops.ieee import fma
from refmodel.quants import QUANTS, integers

f32 = np.float32
SUPER = [name for name in TYPES if QUANTS[Q[name]].WEIGHTS == 256]
NUMBERS = [(kind.name, path) for kind, p in PATHS.items() for path in (p.gemv, p.gemm, p.amx, "super_blocks") if path]
LANES = [(kind.name, path) for kind, p in PATHS.items() for path in (p.vec_dot, p.sgemm) if path]
NUMBERS = list(dict.fromkeys(NUMBERS))
ONE_SUM = [case for case in NUMBERS if case[1] not in MINIMA_ALONE]
WHOLE = [case for case in NUMBERS if case[1] not in GROUPS_AT_ONCE]
CASES = [(way, *case) for case in WHOLE for way in ("rows_as_lanes", "pairs_as_lanes")]
CASES += [
    (way, *case)
    for way, cases in (("panels", NUMBERS), ("matrices", ONE_SUM), ("vec_dot", LANES), ("pairs_of_vec_dot", LANES))
    for case in cases
]


COMMON = ("Q4_K", "Q6_K", "Q8_0", "Q5_0")  # whose kernels the models of golden/ need anyway
CASES = sorted(dict.fromkeys(CASES), key=lambda case: case[1] not in COMMON)


def parts(case):
    """Every type and path; every way with a type that is common and with another one."""
    way, name, path = case
    return {name, path, (way, name in COMMON)}


def packed(name, seed, O, blocks):
    w = Packed(Q[name], seed, O, blocks)
    if name == "MXFP4":  # exponents near one, the smallest, and the largest
        w.rows = w.rows.copy()
        exponents = w.rows.reshape(O, blocks, 17)[:, :, 0]
        exponents[:] = np.random.default_rng(seed).choice([0, 1, 2, 120, 127, 135], exponents.shape)
    return w


def tokens(seed, T, w):
    """Floats, and what they are rounded to."""
    x = activations(np.random.default_rng(seed), T, w.shape[1])
    return x, QUANTIZERS[PATHS[w.type].partner](x)


def multiplied(way, name, path, w, x):
    if way == "matrices" and TARGET_HAS_THEM and not matrix_registers.granted():
        pytest.skip("the system gives this process no matrix registers")
    out = np.full((len(x), w.shape[0]), np.nan, f32)
    product(way, name, path, w.rows, x, out)
    return out


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


def defined(name, path, w, a):
    meaning = blocks_with_minima if path == "super_blocks" and name not in SUPER else getattr(ops, path)
    return meaning(integers(w.type, w.rows), a)


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


@pytest.mark.parametrize(("way", "name", "path"), share(CASES, parts))
@given(seed=seeds(), O=st.integers(1, 40), T=st.integers(1, 9), blocks=st.integers(1, 5))
def test_a_product_has_the_bits_of_its_definition(way, name, path, seed, O, T, blocks):
    w = packed(name, seed, O, blocks)
    x, a = tokens(seed, T, w)
    got = multiplied(way, name, path, w, x)
    same_bits(got, defined(name, path, w, a))
    rounded = (a.d[..., None] * a.codes).reshape(T, -1)
    slack = 1e-3 if PATHS[Q[name]].partner == "q8_1" else 1e-6  # the sums of Q8_1 are half floats
    assert (np.abs(got - exact_product(w, rounded)) <= slack * size_of_sums(w, rounded)).all()


@pytest.mark.parametrize("O", [255, 257, 271, 272, 600])
@pytest.mark.parametrize(
    ("way", "name"), [("rows_as_lanes", "Q4_K"), ("pairs_as_lanes", "Q4_K"), ("panels", "Q5_0"), ("matrices", "Q6_K")]
)
def test_rows_are_claimed_in_chunks_and_none_is_left_out(way, name, O):
    w = packed(name, 3, O, 1)
    x, a = tokens(3, 2, w)
    same_bits(multiplied(way, name, "super_blocks", w, x), defined(name, "super_blocks", w, a))


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "IQ4_XS", "Q8_0"])
def test_the_largest_codes_and_scales_fit_the_planes_of_a_panel(name):
    """All bits of a block set but those of its half floats: codes and scales that random bytes do not meet together."""
    for T in (3, 33, 70):
        w = packed(name, 5, 35, 2)
        w.rows = np.full_like(w.rows, 255)
        blocks = w.rows.reshape(35, 2, -1)
        for place in (TYPES[name].D, TYPES[name].M):
            if place >= 0:
                blocks[:, :, place : place + 2] = np.array([1.5], np.float16).view(np.uint8)
        x, a = tokens(5, T, w)
        same_bits(multiplied("matrices", name, "super_blocks", w, x), defined(name, "super_blocks", w, a))


SIDES = [(name, side) for name in ("Q8_0", "Q4_1", "Q4_K", "Q6_K") for side in (1, 4)]  # each partner; groups of 16 and of 32


@pytest.mark.parametrize(("name", "side"), only(SIDES, ("Q8_0", 4), ("Q4_1", 1), ("Q4_K", 1), ("Q6_K", 4)))
@given(seed=seeds(), T=st.integers(1, 9), blocks=st.integers(1, 3), scale=st.sampled_from([0.0, 1e-6, 1.0, 1e5]))
def test_tokens_are_rounded_to_the_bits_of_the_partner(name, side, seed, T, blocks, scale):
    of = TYPES[name]
    x = (np.random.default_rng(seed).standard_normal((T, blocks * of.WEIGHTS)) * scale).astype(f32)
    x[0, 3] = -x[0].max()  # equally far from zero as another one
    a = QUANTIZERS[PATHS[Q[name]].partner](x)
    q, d, sums, s = tokens = from_python(room)(sizes(token_blocks(name), side, *x.shape))
    round_tokens(Static(token_blocks(name)), Static(side), x, tokens, 0, T)
    groups, fill = of.WEIGHTS // of.GROUP, -T % side
    codes = q.reshape(blocks, -1, of.WEIGHTS // 4, side, 4).transpose(1, 3, 0, 2, 4).reshape(T + fill, blocks, of.WEIGHTS)
    same_bits(codes[:T], a.codes)
    assert not codes[T:].any()
    same_bits(d.T[:T], a.d)
    by_group = sums.reshape(blocks, -1, (groups + 1) // 2, side, 2).transpose(1, 3, 0, 2, 4).reshape(T + fill, blocks, -1)
    same_bits(by_group[:T, :, :groups], a.codes.reshape(T, blocks, groups, -1).sum(axis=-1, dtype=np.int16))
    if PATHS[Q[name]].partner == "q8_1":
        same_bits(s.T[:T], a.sums)
