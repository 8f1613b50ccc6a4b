"""ggml's arithmetic: every kernel has the bits of its definition, and the definitions have the laws that they are named for."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from numba import njit
from strategies import delta_rule, seeds

from refmodel.kernels import deltanet, ieee
from refmodel.kernels import ggml as kernels
from refmodel.kernels import ggml_attention as attention_kernels
from refmodel.ops import activation
from refmodel.ops import ggml as ops
from refmodel.ops import ggml_attention as attention_ops
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
    same_bits(ops.fma(a, b, c), np.array([rounded_once(*abc) for abc in zip(a, b, c, strict=True)], f32))


def test_fma_where_float64_would_round_twice():
    """a · b lies half a unit above 1; c is too small for float64 to see beside it, and decides the tie."""
    a, b = f32(1 + 2**-12), f32(1 + 2**-12)  # 1 + 2^-11 + 2^-24: a tie of float32
    for c, want in ((f32(2.0**-80), 1 + 2**-11 + 2**-23), (f32(-(2.0**-80)), 1 + 2**-11), (f32(0), 1 + 2**-11)):
        same_bits(ops.fma(a, b, c).reshape(1), np.array([want], f32))


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
        same_bits(out, ops.half(x))


@given(seed=seeds(), n=st.integers(1, 100))
@pytest.mark.parametrize("dot", ["dot_f32", "dot_f16", "dot_bf16", "dot_sgemm"])
def test_dots(dot, seed, n):
    n = 8 * n if dot == "dot_sgemm" else n
    x, y = floats(seed, 2, n, spread=3)
    got = getattr(kernels, dot)(x, y)
    same_bits(f32(got), getattr(ops, dot)(x, y).reshape(())[()])
    assert abs(float(got) - x.astype(float) @ y.astype(float)) <= 1e-6 * (np.abs(x).astype(float) @ np.abs(y).astype(float))


@njit
def _exp8(x, out):
    for i in range(x.size):
        out[i] = kernels.exp8(x[i])


@given(seed=seeds())
def test_exp8_is_within_two_units_of_the_exponential(seed):
    x = np.concatenate([np.random.default_rng(seed).uniform(-110, 95, 4000), [0, -0.0, -np.inf, np.inf, 88.8, -87.4]]).astype(f32)
    out = np.empty_like(x)
    _exp8(x, out)
    same_bits(out, ops.exp8(x))
    with np.errstate(over="ignore"):
        exact = np.exp(x.astype(float))
    normal = (exact > 2.0**-126) & (exact < 3.4e38)
    assert (np.abs(out[normal] - exact[normal]) <= 2 * np.spacing(exact[normal].astype(f32))).all()


@given(seed=seeds(), n=st.integers(1, 40))
@pytest.mark.parametrize("name", ["silu", "sigmoid", "softplus"])
def test_activations(name, seed, n):
    x = 9 * np.random.default_rng(seed).standard_normal((3, n)).astype(f32)
    same_bits(getattr(kernels, name)(x), getattr(ops, name)(x))


@given(seed=seeds(), n=st.integers(1, 40))
def test_swiglu(seed, n):
    gate, up = 9 * np.random.default_rng(seed).standard_normal((2, 3, n)).astype(f32)
    same_bits(kernels.swiglu(gate, up), ops.swiglu(gate, up))


@given(seed=seeds())
def test_geglu(seed):
    gate = np.concatenate([EVERY_HALF, floats(seed, 500, spread=5), [-10, 10, np.nextafter(f32(10), f32(0)), -0.0]]).astype(f32)[
        None
    ]
    up = floats(seed + 1, *gate.shape, spread=2)
    with np.errstate(over="ignore", invalid="ignore"):
        same_bits(kernels.geglu(gate, up, ops.gelu_table()), ops.geglu(gate, up))


@given(seed=seeds(), n=st.integers(1, 40))
def test_soft_max(seed, n):
    x = 3 * np.random.default_rng(seed).standard_normal((3, n)).astype(f32)
    same_bits(kernels.soft_max(x), ops.soft_max(x))
    near(ops.soft_max(x), activation.soft_max(x.astype(np.float64)), ulps=4)


@given(seed=seeds(), n=st.integers(1, 300))
def test_rms_norm(seed, n):
    x = floats(seed, 3, n, spread=4)
    same_bits(kernels.rms_norm(x, f32(1e-6)), ops.rms_norm(x, 1e-6))
    near(ops.rms_norm(x, 1e-6), x / np.sqrt(np.mean(np.square(x.astype(float)), axis=-1, keepdims=True) + 1e-6), ulps=3)


@given(
    seed=seeds(), pairs=st.integers(1, 9), adjacent=st.booleans(), plain_last=st.booleans(), yarn=st.booleans(), T=st.integers(1, 5)
)
def test_rope(seed, pairs, adjacent, plain_last, yarn, T):
    r = np.random.default_rng(seed)
    factors = tuple(map(float, r.uniform(1, 4, pairs).astype(f32)))
    how = Rope(base=10000.0, n_rot=2 * pairs, adjacent=adjacent, scale=0.5, factors=factors)
    unscaled = r.uniform(0, 1, pairs).astype(f32) if yarn else np.zeros(pairs, f32)
    if yarn:
        how = replace(how, unscaled=tuple(map(float, unscaled)), magnitude=float(f32(1.2)))
    x, pos = r.standard_normal((T, 3, 2 * pairs + 3)).astype(f32), r.integers(0, 5000, T)
    got = kernels.rope(
        x, pos, ops.rope_step(how), f32(how.scale), np.array(factors, f32), unscaled, f32(how.magnitude), adjacent, plain_last
    )
    same_bits(got, ops.rope(x, pos, how, plain_last))


@given(seed=seeds(), K=st.integers(2, 9), T=st.integers(1, 5))
def test_causal_conv1d(seed, K, T):
    x, w = floats(seed, K - 1 + T, 7, spread=3), floats(seed + 1, 7, K, spread=3)
    same_bits(kernels.causal_conv1d(x, w), ops.causal_conv1d(x, w))


@given(seed=seeds(), T=st.integers(1, 4), Dk=st.sampled_from([7, 32, 37]), Dv=st.sampled_from([6, 34]))
def test_gated_delta_rule(seed, T, Dk, Dv):
    *args, before = delta_rule(seed, T=T, Hk=2, Hv=4, Dk=Dk, Dv=Dv).args
    after = np.empty((2, *before.shape), f32)
    same_bits(deltanet.gated_delta_rule(*args, before, after[0]), ops.gated_delta_rule(*args, before, after[1]))
    same_bits(after[0], after[1])


def test_gated_delta_rule_of_many_tokens():
    *args, before = delta_rule(1, T=2 * deltanet.CHUNK + 3, Hk=1, Hv=2, Dk=37, Dv=7).args
    after = np.empty((2, *before.shape), f32)
    same_bits(deltanet.gated_delta_rule(*args, before, after[0]), ops.gated_delta_rule(*args, before, after[1]))
    same_bits(after[0], after[1])


def heads(seed, T, S, H, G, D):
    r = np.random.default_rng(seed)
    return (*(r.standard_normal(shape).astype(f32) for shape in ((T, H, D), (S, G, D), (S, G, D))), float(D**-0.5))


NONE = np.zeros((0, 0, 0), f32)
WINDOWS = st.sampled_from([0, 1, 5, 66, 300])


@given(
    seed=seeds(),
    T=st.integers(1, 4),
    past=st.integers(0, 20),
    D=st.sampled_from([8, 10, 36]),
    half_cache=st.booleans(),
    window=WINDOWS,
)
def test_attention_without_flash(seed, T, past, D, half_cache, window):
    args = heads(seed, T, T + past, 4, 2, D)
    seen = [[np.zeros((4, T, T + past), f32) for _ in range(2)] for _ in range(2)]
    got = attention_kernels.without_flash(*args, *seen[0], window, half_cache=half_cache)
    want = attention_ops.without_flash(*args, *seen[1], window, half_cache=half_cache)
    same_bits(got, want)
    for a, b in zip(*seen, strict=True):
        same_bits(a, b)


@given(
    seed=seeds(),
    T=st.sampled_from([1, 3, 64, 70]),
    past=st.integers(0, 40),
    D=st.sampled_from([8, 10]),
    fused=st.booleans(),
    window=WINDOWS,
)
def test_flash_attention(seed, T, past, D, fused, window):
    args = heads(seed, T, T + past, 2, 1, D)
    for any_head in (True, False):
        how = {"threads": 1, "fused_sum": fused, "tiles_any_head": any_head}
        same_bits(attention_kernels.flash(*args, NONE, NONE, window, **how), attention_ops.flash(*args, NONE, NONE, window, **how))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_flash_attention_of_one_token_splits_its_keys_among_threads(threads):
    args = heads(1, 1, 700, 2, 1, 8)
    how = {"threads": threads, "fused_sum": True, "tiles_any_head": True}
    got = attention_kernels.flash(*args, NONE, NONE, 0, **how)
    same_bits(got, attention_ops.flash(*args, NONE, NONE, 0, **how))
    same_bits(attention_kernels.flash(*args, NONE, NONE, 350, **how), attention_ops.flash(*args, NONE, NONE, 350, **how))
    alone = attention_kernels.flash(*args, NONE, NONE, 0, threads=1, fused_sum=True, tiles_any_head=True)
    assert (threads == 1) == bool((got == alone).all())


def test_the_scale_of_attention_is_rounded_twice():
    assert ops.inverse_root(96) != f32(96**-0.5)
    assert ops.inverse_root(64) == 0.125
