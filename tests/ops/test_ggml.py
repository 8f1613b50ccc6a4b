"""ggml's arithmetic: every kernel has the bits of its definition, and the definitions have the laws that they are named for."""

from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import from_python, near, same_bits
from numba import njit
from strategies import delta_rule, seeds

from refmodel.kernels import deltanet, exponential, ggml_floats
from refmodel.kernels import ggml as kernels
from refmodel.kernels import ggml_attention as attention_kernels
from refmodel.kernels.language import ieee
from refmodel.kernels.language.memory import load, store
from refmodel.kernels.language.vectors import Vec
from refmodel.ops import activation
from refmodel.ops import ggml as ops
from refmodel.ops import ggml_attention as attention_ops
from refmodel.ops import ggml_floats as float_ops
from refmodel.ops import ieee as ieee_ops
from refmodel.ops.rope import Rope

f32 = np.float32
EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
EVERY_HALF = EVERY_HALF[~np.isnan(EVERY_HALF)].astype(f32)


def floats(seed, *shape, spread=30):
    """Of very different sizes, as sums of them have to be rounded."""
    r = np.random.default_rng(seed)
    return (r.standard_normal(shape) * np.exp2(r.uniform(-spread, spread, shape))).astype(f32)


def rounded_once(a, b, c):
    """a · b + c by exact fractions."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near_by = f32(float(exact))
    candidates = [np.nextafter(near_by, f32(-np.inf)), near_by, np.nextafter(near_by, f32(np.inf))]
    return min(candidates, key=lambda x: (abs(Fraction(float(x)) - exact), int(np.asarray(x).view(np.uint32)) & 1))


@given(seed=seeds())
def test_fma_is_rounded_once(seed):
    a, b, c = floats(seed, 3, 200, spread=8)
    same_bits(ieee_ops.fma(a, b, c), np.array([rounded_once(*abc) for abc in zip(a, b, c, strict=True)], f32))


def test_fma_where_float64_would_round_twice():
    """a · b lies half a unit above 1; c is too small for float64 to see beside it, and decides the tie."""
    a, b = f32(1 + 2**-12), f32(1 + 2**-12)  # 1 + 2^-11 + 2^-24: a tie of float32
    for c, want in ((f32(2.0**-80), 1 + 2**-11 + 2**-23), (f32(-(2.0**-80)), 1 + 2**-11), (f32(0), 1 + 2**-11)):
        same_bits(ieee_ops.fma(a, b, c).reshape(1), np.array([want], f32))


@njit
def _halves(x, out):
    for i in range(x.size):
        out[i] = ieee.to_half(x[i])


@given(seed=seeds())
def test_rounding_to_half_is_that_of_the_hardware(seed):
    between = (EVERY_HALF[:-1] + EVERY_HALF[1:])[np.isfinite(EVERY_HALF[:-1] + EVERY_HALF[1:])] / 2
    x = np.concatenate([EVERY_HALF, between, np.nextafter(between, f32(0)), floats(seed, 3000)])
    out = np.empty_like(x)
    _halves(x, out)
    with np.errstate(over="ignore"):
        same_bits(out, ieee_ops.half(x))


LANES = pytest.mark.parametrize("lanes", [8, 16])


@LANES
@given(seed=seeds(), n=st.integers(1, 200))
@pytest.mark.parametrize("dot", ["dot_f32", "dot_f16", "dot_bf16", "dot_sgemm"])
def test_dots(dot, lanes, seed, n):
    n = lanes * n if dot == "dot_sgemm" else n
    x, y = floats(seed, 2, n, spread=3)
    got = from_python(getattr(ggml_floats, dot))(x, y, lanes)
    same_bits(f32(got), getattr(float_ops, dot)(x, y, lanes).reshape(())[()])
    assert abs(float(got) - x.astype(float) @ y.astype(float)) <= 1e-6 * (np.abs(x).astype(float) @ np.abs(y).astype(float))


@given(seed=seeds(), n=st.integers(1, 200), small=st.sampled_from([0, 62]))
@pytest.mark.parametrize("dot", ["dot_bf16_pairs", "dot_sgemm_pairs"])
def test_dots_of_pairs_of_bfloats(dot, seed, n, small):
    """Of numbers whose products are subnormal too: they are zeros there."""
    n = 32 * n if dot == "dot_sgemm_pairs" else n
    x, y = ieee_ops.bfloat(floats(seed, 2, n, spread=3) * f32(2.0**-small))
    got = from_python(getattr(ggml_floats, dot))(x, y)
    same_bits(f32(got), getattr(float_ops, dot)(x, y).reshape(())[()])
    exact, size = x.astype(float) @ y.astype(float), np.abs(x).astype(float) @ np.abs(y).astype(float)
    assert abs(float(got) - exact) <= 1e-6 * size + n * 2.0**-126


@given(seed=seeds(), O=st.integers(1, 9), T=st.integers(1, 4), n=st.integers(1, 5))
@pytest.mark.parametrize("order", ggml_floats.DOTS)
def test_products_in_the_orders_of_wide_registers(order, seed, O, T, n):
    w, x = (ieee_ops.bfloat(floats(seed + k, rows, 32 * n, spread=3)) for k, rows in enumerate((O, T)))
    out = np.full((T, O + 1), np.nan, f32)
    ggml_floats.product(order, w, x, out[:, :O])
    same_bits(out[:, :O].copy(), float_ops.ORDERS[order](w[None], x[:, None]))
    assert np.isnan(out[:, O]).all()


def test_a_subnormal_bfloat_is_a_zero_in_pairs():
    one, tiny = f32(1), f32(2.0**-130)
    x, y = np.zeros((2, 32), f32)
    x[:4], y[:4] = [tiny, one, 0, 0], [one, one, 0, 0]
    assert float_ops.dot_sgemm_pairs(x, y) == 1
    x[1] = 0
    assert float_ops.dot_sgemm_pairs(x, y) == 0 != float_ops.dot_sgemm(x, y, 16)


f32x8, f32x16 = Vec("f", 32, 8), Vec("f", 32, 16)
FAR = [0, -0.0, -np.inf, np.inf, 88.8, -87.4, 88.72, 88.73, -103.97, -103.98, 133.1, 133.2, -133.1, -133.2, 1e30, -1e30]


@njit
def _exp8(x, out):
    for i in range(0, x.size, 8):
        store(out, 4 * i, exponential.exp(load(f32x8, x, 4 * i)))


@njit
def _exp16(x, out):
    for i in range(0, x.size, 16):
        store(out, 4 * i, exponential.exp_of_16(load(f32x16, x, 4 * i)))


@pytest.mark.parametrize(("kernel", "lanes", "units"), [(_exp8, 8, 2), (_exp16, 16, 2.3)])
@given(seed=seeds())
def test_exp_is_within_a_few_units_of_the_exponential(kernel, lanes, units, seed):
    x = np.concatenate([np.random.default_rng(seed).uniform(-140, 140, 4000), FAR]).astype(f32)
    out = np.empty_like(x)
    kernel(x, out)
    same_bits(out, ops.EXP[lanes](x))
    with np.errstate(over="ignore"):
        exact = np.exp(x.astype(float))
    normal = (exact > 2.0**-126) & (exact < 3.4e38)
    assert (np.abs(out[normal] - exact[normal]) <= units * np.spacing(exact[normal].astype(f32))).all()


@given(seed=seeds(), n=st.integers(1, 40))
@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_activations(name, seed, n):
    x = 9 * np.random.default_rng(seed).standard_normal((3, n)).astype(f32)
    same_bits(getattr(kernels, name)(x), getattr(ops, name)(x))


@LANES
@given(seed=seeds(), n=st.integers(1, 70))
def test_silu_and_swiglu(lanes, seed, n):
    gate, up = 9 * np.random.default_rng(seed).standard_normal((2, 3, n)).astype(f32)
    same_bits(kernels.silu(gate, lanes), ops.silu(gate, lanes))
    same_bits(kernels.swiglu(gate, up, lanes), ops.swiglu(gate, up, lanes))


@given(seed=seeds())
def test_geglu(seed):
    gate = np.concatenate([EVERY_HALF, floats(seed, 500, spread=5), [-10, 10, np.nextafter(f32(10), f32(0)), -0.0]]).astype(f32)[
        None
    ]
    up = floats(seed + 1, *gate.shape, spread=2)
    with np.errstate(over="ignore", invalid="ignore"):
        same_bits(kernels.geglu(gate, up, ops.gelu_table()), ops.geglu(gate, up))


@LANES
@given(seed=seeds(), n=st.integers(1, 70))
def test_soft_max(lanes, seed, n):
    x = 3 * np.random.default_rng(seed).standard_normal((3, n)).astype(f32)
    same_bits(kernels.soft_max(x, lanes), ops.soft_max(x, lanes))
    near(ops.soft_max(x, lanes), activation.soft_max(x.astype(np.float64)), ulps=4)


@given(seed=seeds(), n=st.integers(1, 300))
def test_rms_norm(seed, n):
    x = floats(seed, 3, n, spread=4)
    same_bits(kernels.rms_norm(x, f32(1e-6)), ops.rms_norm(x, 1e-6))
    near(ops.rms_norm(x, 1e-6), x / np.sqrt(np.mean(np.square(x.astype(float)), axis=-1, keepdims=True) + 1e-6), ulps=3)


@given(
    seed=seeds(),
    pairs=st.integers(1, 9),
    adjacent=st.booleans(),
    at_once=st.sampled_from([1, 2, 4]),
    yarn=st.booleans(),
    T=st.integers(1, 5),
)
def test_rope(seed, pairs, adjacent, at_once, yarn, T):
    r = np.random.default_rng(seed)
    factors = tuple(map(float, r.uniform(1, 4, pairs).astype(f32)))
    how = Rope(base=10000.0, n_rot=2 * pairs, adjacent=adjacent, scale=0.5, factors=factors)
    unscaled = r.uniform(0, 1, pairs).astype(f32) if yarn else np.zeros(pairs, f32)
    if yarn:
        how = replace(how, unscaled=tuple(map(float, unscaled)), magnitude=float(f32(1.2)))
    x, pos = r.standard_normal((T, 3, 2 * pairs + 3)).astype(f32), r.integers(0, 5000, T)
    got = kernels.rope(
        x, pos, ops.rope_step(how), f32(how.scale), np.array(factors, f32), unscaled, f32(how.magnitude), adjacent, at_once
    )
    same_bits(got, ops.rope(x, pos, how, at_once))


@LANES
@given(seed=seeds(), K=st.integers(2, 19), T=st.integers(1, 5))
def test_causal_conv1d(lanes, seed, K, T):
    x, w = floats(seed, K - 1 + T, 7, spread=3), floats(seed + 1, 7, K, spread=3)
    same_bits(kernels.causal_conv1d(x, w, lanes), ops.causal_conv1d(x, w, lanes))


RULES = {8: deltanet.gated_delta_rule, 16: partial(kernels.gated_delta_rule, lanes=16)}


@LANES
@given(seed=seeds(), T=st.integers(1, 4), Dk=st.sampled_from([7, 32, 37, 64, 90]), Dv=st.sampled_from([6, 34]))
def test_gated_delta_rule(lanes, seed, T, Dk, Dv):
    *args, before = delta_rule(seed, T=T, Hk=2, Hv=4, Dk=Dk, Dv=Dv).args
    after = np.empty((2, *before.shape), f32)
    same_bits(RULES[lanes](*args, before, after[0]), ops.gated_delta_rule(*args, before, after[1], lanes))
    same_bits(after[0], after[1])


def test_gated_delta_rule_of_many_tokens():
    *args, before = delta_rule(1, T=2 * deltanet.CHUNK + 3, Hk=1, Hv=2, Dk=37, Dv=7).args
    after = np.empty((2, *before.shape), f32)
    same_bits(deltanet.gated_delta_rule(*args, before, after[0]), ops.gated_delta_rule(*args, before, after[1], lanes=8))
    same_bits(after[0], after[1])


def heads(seed, T, S, H, G, D):
    r = np.random.default_rng(seed)
    q, k, v = (r.standard_normal(shape).astype(f32) for shape in ((T, H, D), (S, G, D + 1), (S, G, D + 1)))
    return q, k[:, :, :D], v[:, :, :D], float(D**-0.5)  # keys and values are parts of a cache, as in a session


NONE = np.zeros((0, 0, 0), f32)
WINDOWS = st.sampled_from([0, 1, 5, 66, 300])


@LANES
@given(
    seed=seeds(),
    T=st.integers(1, 4),
    past=st.integers(0, 20),
    D=st.sampled_from([8, 10, 16, 36, 64, 80]),
    half_cache=st.booleans(),
    window=WINDOWS,
)
def test_attention_without_flash(lanes, seed, T, past, D, half_cache, window):
    args = heads(seed, T, T + past, 4, 2, D)
    seen = [[np.zeros((4, T, T + past), f32) for _ in range(2)] for _ in range(2)]
    got = attention_kernels.without_flash(*args, *seen[0], window, half_cache=half_cache, lanes=lanes)
    want = attention_ops.without_flash(*args, *seen[1], window, half_cache=half_cache, lanes=lanes)
    same_bits(got, want)
    for a, b in zip(*seen, strict=True):
        same_bits(a, b)


@LANES
@given(
    seed=seeds(),
    T=st.sampled_from([1, 3, 64, 70]),
    past=st.integers(0, 40),
    D=st.sampled_from([8, 10, 64, 140]),
    fused=st.booleans(),
    halves=st.booleans(),
    window=WINDOWS,
)
def test_flash_attention(lanes, seed, T, past, D, fused, halves, window):
    args = heads(seed, T, T + past, 2, 1, D)
    for any_head in (True, False):
        how = {"threads": 1, "fused_sum": fused, "tiles_any_head": any_head, "halves": halves, "lanes": lanes}
        same_bits(attention_kernels.flash(*args, NONE, NONE, window, **how), attention_ops.flash(*args, NONE, NONE, window, **how))


@pytest.mark.parametrize("T", [1, 63, 64, 65, 130])
def test_flash_attention_by_rows_knows_no_tiles(T):
    """Each query alone has the same bits; in tiles it has others."""
    q, k, v, scale = heads(5, T, T + 9, 2, 1, 32)
    how = {"threads": 1, "fused_sum": False, "tiles_any_head": True, "halves": False, "lanes": 8}
    flash = partial(attention_kernels.flash, **how)
    got = attention_ops.flash_by_rows(flash, q, k, v, scale, NONE, NONE, 40)
    seen = [9 + t + 1 for t in range(T)]
    alone = [flash(q[t : t + 1], k[:n], v[:n], scale, NONE, NONE, 40) for t, n in enumerate(seen)]
    same_bits(got, np.concatenate(alone))
    assert (T >= attention_ops.TILE) == (not np.array_equal(got, flash(q, k, v, scale, NONE, NONE, 40)))


@LANES
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_flash_attention_of_one_token_splits_its_keys_among_threads(threads, lanes):
    args = heads(1, 1, 700, 2, 1, 8)
    how = {"threads": threads, "fused_sum": True, "tiles_any_head": True, "halves": False, "lanes": lanes}
    got = attention_kernels.flash(*args, NONE, NONE, 0, **how)
    same_bits(got, attention_ops.flash(*args, NONE, NONE, 0, **how))
    same_bits(attention_kernels.flash(*args, NONE, NONE, 350, **how), attention_ops.flash(*args, NONE, NONE, 350, **how))
    alone = attention_kernels.flash(*args, NONE, NONE, 0, **how | {"threads": 1})
    assert (threads == 1) == bool((got == alone).all())


def test_half_floats_change_the_bits_of_whole_steps_only():
    how = {"threads": 1, "fused_sum": True, "tiles_any_head": True, "lanes": 16}
    for D, step in ((64, 0), (140, 128), (256, 256)):
        args = heads(1, 2, 30, 2, 1, D)
        half, single = (attention_ops.flash(*args, NONE, NONE, 0, halves=halves, **how) for halves in (True, False))
        same_bits(half[..., step:], single[..., step:])
        assert (half[..., :step] != single[..., :step]).any() == (step > 0)


@given(seed=seeds())
def test_a_product_of_half_floats_is_rounded_once(seed):
    """The nearest half float, by exact fractions; of two the even one."""
    r = np.random.default_rng(seed)
    a, b, c = (ieee_ops.half(r.standard_normal(1000).astype(f32) * f32(2.0) ** r.integers(-12, 5, 1000)) for _ in range(3))
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    got = ieee_ops.fma_of_halves(a, b, c)
    for x, want in zip(got, exact, strict=True):
        error = abs(Fraction(float(x)) - want)
        for next_one in np.nextafter(np.float16(x), np.float16([-np.inf, np.inf])):
            assert error < (other := abs(Fraction(float(next_one)) - want)) or (
                error == other and not np.float16(x).view(np.int16) & 1
            )


def test_the_scale_of_attention_is_rounded_twice():
    assert ops.inverse_root(96) != f32(96**-0.5)
    assert ops.inverse_root(64) == 0.125
