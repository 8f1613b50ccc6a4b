"""Norms, activations and rotary embedding: each against its definition in float64, and its laws."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from strategies import seeds

from refmodel.kernels import activation as kernels
from refmodel.kernels.language.threads import worth
from refmodel.kernels.norm import rms_norm as rms_norm_kernel
from refmodel.kernels.rope import rope as rope_kernel
from refmodel.ops import ggml
from refmodel.ops.activation import sigmoid, silu, softplus, swiglu
from refmodel.ops.norm import rms_norm
from refmodel.ops.rope import Rope, rope

EXACT = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
}
BOTH = [sigmoid, silu, softplus, kernels.sigmoid, kernels.silu, kernels.softplus]
NORMS = pytest.mark.parametrize("norm", [rms_norm, rms_norm_kernel], ids=["op", "kernel"])


@pytest.mark.parametrize("f", BOTH, ids=lambda f: f"{f.__module__}.{f.__name__}")
@given(seed=seeds(), n=st.integers(1, 70))
def test_activations(f, seed, n):
    x = (8 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)
    near(f(x), EXACT[f.__name__](x.astype(float)), ulps=3)


@given(seed=seeds(), n=st.integers(1, 9), T=st.integers(1, 5))
def test_kernels_of_whole_eights_have_the_bits_of_ggml_wherever_a_number_stands(seed, n, T):
    gate, up = 9 * np.random.default_rng(seed).standard_normal((2, T, 8 * n)).astype(np.float32)
    same_bits(kernels.silu(gate), ggml.silu(gate, 8))
    same_bits(kernels.swiglu(gate, up), ggml.swiglu(gate, up, 8))
    same_bits(kernels.sigmoid(gate)[-1], kernels.sigmoid(gate[-1]))


def test_parts_for_several_threads_have_the_bits_of_one():
    part = worth(kernels.NANOSECONDS)
    x = (8 * np.random.default_rng(1).standard_normal(3 * part + 37)).astype(np.float32)
    some = slice(part - 16, 2 * part + 32)  # whole vectors, over two borders
    same_bits(kernels.silu(x)[some], kernels.silu(x[some]))
    same_bits(kernels.swiglu(x, x[::-1])[some], kernels.swiglu(x[some], x[::-1][some]))


@pytest.mark.parametrize("f", BOTH, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_activations_have_their_limits(f):
    x = np.array([-1e30, -200, -100, 0, 100, 1e30], np.float32)
    limits = {"sigmoid": [0, 0, 0, 0.5, 1, 1], "silu": [0, 0, 0, 0, 100, 1e30], "softplus": [0, 0, 0, np.log(2), 100, 1e30]}
    got, want = f(x), np.array(limits[f.__name__], np.float32)
    assert (np.abs(got - want) <= np.spacing(want) + 1e-37).all()  # one unit in the last place; e^-100 is no more than 4e-44


@given(seed=seeds())
def test_swiglu_is_silu_times_up(seed):
    gate, up = np.random.default_rng(seed).standard_normal((2, 3, 7)).astype(np.float32)
    same_bits(swiglu(gate, up), silu(gate) * up)


@NORMS
@given(seed=seeds(), T=st.integers(1, 4), n=st.integers(1, 200))
def test_rms_norm_gives_rows_of_size_one_each_by_itself(norm, seed, T, n):
    x = np.random.default_rng(seed).standard_normal((T, n)).astype(np.float32)
    exact = x / np.sqrt((x.astype(float) ** 2).mean(-1, keepdims=True) + 1e-6)
    near(norm(x, 1e-6), exact, ulps=3)
    same_bits(norm(x[:1], 1e-6), norm(x, 1e-6)[:1])


def turning(n_rot, adjacent, factors=None):
    return Rope(10000.0, n_rot, adjacent, 1.0, factors or (1.0,) * (n_rot // 2))


@pytest.mark.parametrize("adjacent", [False, True])
@given(seed=seeds(), shift=st.integers(0, 1000))
def test_scores_of_rotated_heads_depend_on_the_distance_alone(adjacent, seed, shift):
    q, k = np.random.default_rng(seed).standard_normal((2, 1, 1, 10))
    how = turning(10, adjacent)
    score = lambda i, j: np.vdot(rope(q, np.array([i]), how), rope(k, np.array([j]), how))
    assert abs(score(5 + shift, 2 + shift) - score(5, 2)) < 1e-10 * np.linalg.norm(q) * np.linalg.norm(k)


@pytest.mark.parametrize("adjacent", [False, True])
@given(seed=seeds())
def test_only_the_first_n_rot_dims_turn_and_position_zero_turns_nothing(adjacent, seed):
    x = np.random.default_rng(seed).standard_normal((3, 2, 10)).astype(np.float32)
    y = rope(x, np.array([0, 4, 9]), turning(6, adjacent))
    same_bits(y[:, :, 6:], x[:, :, 6:])
    same_bits(y[0], x[0])
    assert (y[1:, :, :6] != x[1:, :, :6]).all()


@pytest.mark.parametrize("adjacent", [False, True])
@given(seed=seeds(), T=st.integers(1, 4), H=st.integers(1, 3), half=st.integers(1, 20), behind=st.integers(0, 5))
def test_the_kernel_of_rope_has_the_bits_of_its_definition(adjacent, seed, T, H, half, behind):
    r = np.random.default_rng(seed)
    x, pos = r.standard_normal((T, H, 2 * half + behind)).astype(np.float32), r.integers(0, 5000, T)
    how = replace(turning(2 * half, adjacent), magnitude=1.25)
    same_bits(rope_kernel(x, pos, how), rope(x, pos, how))


@given(seed=seeds(), base=st.floats(100, 1e8), half=st.integers(1, 64), scale=st.sampled_from([1.0, 0.25]))
def test_pair_i_turns_with_the_base_to_the_power_of_minus_2i_by_n(seed, base, half, scale):
    r = np.random.default_rng(seed)
    factors, kept = tuple(r.uniform(0.5, 40, half)), tuple(r.uniform(0, 1, half))
    pos = r.integers(0, 100_000, 3)
    for how in (Rope(base, 2 * half, False, scale, factors), Rope(base, 2 * half, False, scale, factors, kept)):
        for angles, p in zip(how.angles(pos), pos, strict=True):
            for i, angle in enumerate(angles):
                part = how.unscaled[i] if how.unscaled else 0.0
                exact = p * (scale * (1 - part) + part) * base ** (-2 * i / (2 * half)) / factors[i]
                assert angle == pytest.approx(exact, rel=1e-13, abs=0)


def test_pairs_are_adjacent_or_half_apart():
    x = np.zeros((1, 1, 8))
    x[0, 0, 0] = 1
    for adjacent, partner in ((True, 1), (False, 3)):
        y = rope(x, np.array([1]), turning(6, adjacent))[0, 0]
        assert np.flatnonzero(y).tolist() == [0, partner]
        assert y[0] == np.cos(1.0)
        assert y[partner] == np.sin(1.0)


def test_a_pair_with_an_infinite_divisor_never_turns():
    x = np.arange(1.0, 7.0).reshape(1, 1, 6)
    y = rope(x, np.array([7]), turning(6, False, (1.0, np.inf, 2.0)))
    assert np.flatnonzero(x != y).tolist() == [0, 2, 3, 5]
