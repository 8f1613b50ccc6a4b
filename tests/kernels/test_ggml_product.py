"""Numerics `llamacpp`: which path a product takes, token by token, and how activations are rounded for it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from shares import name_of, only, share
from strategies import activations, seeds
from test_kernels_linear import Packed

from refmodel.errors import TensorError
from refmodel.llamacpp.builds import AVX2, BUILDS, INSTRUCTIONS, JUDGE, SAPPHIRERAPIDS, builds_of, compiled_for
from refmodel.llamacpp.profile import DEFAULT
from refmodel.numerics import llamacpp
from refmodel.numerics.choices import ROUNDED, order, rounding
from refmodel.numerics.llamacpp import linear, linear_of_expert, of_floats
from refmodel.ops import ggml_product as ops
from refmodel.ops.ggml_floats import FLOAT_PATHS, ORDERS, dot_f32, dot_sgemm
from refmodel.ops.ggml_paths import PATHS, QUANTIZERS, Step, plan, plan_of_expert
from refmodel.quants import FLOATS, QUANTS, dequantize, integers, q8_0, q8_1, q8_k

f32 = np.float32


def tokens(seed, T, I):
    return activations(np.random.default_rng(seed), T, I)


ROWS, COUNTS = (523, 264, 100, 16, 8, 7, 3, 1), (11, 3, 1)


KINDS = list(dict.fromkeys([Q.Q4_K, Q.Q8_0, Q.Q4_1, *PATHS]))  # one of each partner first


def sizes_of(case):
    """The sizes of a case, what its tokens are rounded to, and in how many steps; test_packed_products.py has every path."""
    kind, O, T = case
    return {("rows", O), ("tokens", T), PATHS[kind].partner, len(plan(kind, O, T, AVX2.repacked, True, False, ()))}


@pytest.mark.parametrize(("kind", "O", "T"), share(itertools.product(KINDS, ROWS, COUNTS), sizes_of), ids=name_of)
def test_a_product_is_the_sum_of_its_steps(kind, O, T):
    """The numerics value sends every token down the path of the plan, in panels of any size or straight from the file."""
    w, x = Packed(kind, 4, O, 2), tokens(4, T, 512 if PATHS[kind].partner == "q8_k" else 64)
    if kind == Q.MXFP4:
        w.rows = w.rows.copy()
        w.rows.reshape(O, 2, 17)[:, :, 0] = 125
    w.name = "blk.0.ffn_up.weight"
    whole = integers(kind, w.rows)
    parts = [
        getattr(ops, step.path)(whole, QUANTIZERS[PATHS[kind].partner](x[step.tokens]))
        for step in plan(kind, O, T, AVX2.repacked, True, False, ())
    ]
    same_bits(llamacpp(DEFAULT).linear(w, x), np.concatenate(parts))


def test_a_type_whose_path_is_not_known_is_refused_by_name():
    w = Packed(Q.Q8_0, 1, 4, 1)
    w.type, w.name = Q.IQ3_S, "blk.7.ffn_up.weight"
    with pytest.raises(TensorError, match=r"blk\.7\.ffn_up\.weight: how llama\.cpp multiplies IQ3_S is not known here"):
        llamacpp(DEFAULT).linear(w, tokens(1, 1, 32))


def test_one_build_pads_rows_of_floats_for_sgemm():
    """b11739; others take the dot product of rows that are no multiple of 8."""
    r = np.random.default_rng(2)
    w, x = Packed(Q.F32, 2, 4, 20), r.standard_normal((3, 20)).astype(f32)
    w.rows = r.standard_normal((4, 20)).astype(f32).view(np.uint8)
    w.name, floats = "blk.0.ssm_beta.weight", w.rows.view(f32)
    pad = lambda a: np.pad(a, ((0, 0), (0, 4)))
    padded = dot_sgemm(pad(floats)[None], pad(x)[:, None], lanes=8)
    same_bits(llamacpp(DEFAULT, BUILDS["0ce8cd1"]).linear(w, x), padded)
    plain = dot_f32(floats[None], x[:, None], lanes=8)
    same_bits(llamacpp(DEFAULT).linear(w, x), plain)
    assert (padded != plain).any()


def test_the_plan():
    every, off = slice(0, 9), {"repacked": (), "tiled": True, "panels": False, "amx": ()}
    default = {"repacked": AVX2.repacked, "tiled": True, "panels": False, "amx": ()}
    assert plan(Q.Q4_K, 8, 9, **default) == [
        Step(slice(0, 8), "pairs_of_q4_k"),
        Step(slice(8, 9), "sums_of_q4_k"),
    ]
    assert plan(Q.Q4_K, 8, 3, **default) == [Step(slice(0, 3), "sums_of_q4_k")]
    assert plan(Q.Q4_K, 8, 4, **default) == [Step(slice(0, 4), "pairs_of_q4_k")]
    assert plan(Q.Q4_K, 12, 9, **default) == [Step(every, "super_blocks")] == plan(Q.Q4_K, 8, 9, **off)
    assert plan(Q.Q6_K, 8, 7, **default) == [Step(slice(0, 7), "lanes_of_q6_k")]
    assert plan(Q.Q6_K, 8, 9, (), False, False, ()) == [Step(every, "lanes_of_q6_k")]
    assert plan(Q.IQ4_NL, 12, 1, **default) == [Step(slice(0, 1), "alternating_lanes")]
    assert plan(Q.IQ4_NL, 12, 2, **default) == [Step(slice(0, 2), "eight_lanes")]
    assert plan(Q.IQ4_XS, 8, 9, (), False, True, ()) == [Step(every, "whole_super_blocks")]
    amx = default | {"amx": SAPPHIRERAPIDS.amx}
    assert plan(Q.Q4_K, 64, 9, **amx) == [Step(every, "whole_super_blocks_and_minima")]
    assert plan(Q.Q4_K, 40, 3, **amx) == [Step(slice(0, 3), "sums_of_q4_k")]
    assert plan(Q.Q5_0, 64, 9, **amx) == [Step(every, "eight_lanes")]


def test_the_plan_of_experts():
    """Of one build IQ4_XS has panels for experts too, from 8 tokens on. Experts are never multiplied by AMX or sgemm."""
    every = slice(0, 9)
    assert plan_of_expert(Q.IQ4_XS, 16, 9, (), False, True) == [Step(every, "whole_super_blocks")]
    assert plan_of_expert(Q.IQ4_XS, 16, 7, (), False, True) == [Step(slice(0, 7), "lanes_of_iq4_xs")]
    assert plan_of_expert(Q.IQ4_XS, 12, 9, (), False, True) == [Step(every, "lanes_of_iq4_xs")]
    assert plan_of_expert(Q.IQ4_XS, 16, 9, (), True, False) == [Step(every, "super_blocks")]
    assert plan_of_expert(Q.Q4_K, 16, 9, AVX2.repacked, True, False) == [Step(every, "sums_of_q4_k")]
    assert plan_of_expert(Q.Q8_0, 32, 9, (), True, False) == [Step(every, "eight_lanes")]


@given(seed=seeds(), scale=st.sampled_from([1e-30, 0.1, 1.0, 100.0]))
def test_activations_keep_their_size(seed, scale):
    """A code is off by half a step at most; the step is the scale of the block."""
    x = tokens(seed, 2, 512) * f32(scale)
    for quantize, width in ((q8_0.quantize, 32), (q8_1.quantize, 32), (q8_k.quantize, 256)):
        a = quantize(x)
        if scale < 1e-5 and width == 32:  # the scale is a half float
            assert not a.d.any()
            continue
        back = (a.d[..., None] * a.codes).reshape(x.shape)
        step = np.repeat(np.abs(a.d), width, axis=1)
        assert (np.abs(back - x) <= step * 0.55 + 1e-3 * np.abs(x)).all()  # the scale of 32 weights is itself rounded to half


def test_zeros_become_zeros():
    for quantize in QUANTIZERS.values():
        a = quantize(np.zeros((2, 256), f32))
        assert not a.d.any()
        assert not a.codes.any()
        assert not a.sums.any()


def test_of_values_equally_far_from_zero_the_first_decides():
    x = np.zeros((1, 256), f32)
    x[0, 3], x[0, 9] = -2, 2
    assert q8_k.quantize(x).d > 0
    assert q8_k.quantize(-x).d < 0


# ---- kernels for other processors


def orders_of(case):
    """The order of sums that a case is about."""
    kind, which, sgemm = case
    paths = FLOAT_PATHS[kind, which.floats]
    return {paths.sgemm if sgemm else paths.alone}


@pytest.mark.parametrize("which", INSTRUCTIONS.values(), ids=lambda which: which.name)
def test_what_is_repacked_has_paths_for_it(which):
    for name in which.repacked:
        assert PATHS[Q[name]].gemv
        assert PATHS[Q[name]].gemm


@pytest.mark.parametrize(
    ("kind", "which", "sgemm"), share(itertools.product(FLOATS, INSTRUCTIONS.values(), (True, False)), orders_of), ids=name_of
)
@given(seed=seeds(), O=st.sampled_from([3, 4, 20, 32]), T=st.integers(1, 3), I=st.sampled_from([20, 32, 48, 64, 100, 256]))
def test_a_product_with_floats_has_the_order_of_the_instructions(which, kind, sgemm, seed, O, T, I):
    w, x = Packed(kind, seed, O, I), tokens(seed, T, I)
    paths = FLOAT_PATHS[kind, which.floats]
    alone = paths.sgemm if sgemm and T > 1 and O % 4 == 0 and I % paths.whole == 0 else paths.alone
    how = "dot_amx" if sgemm and kind.name in which.amx and O == 32 and I % 16 == 0 else alone
    assert order(DEFAULT, compiled_for(JUDGE, which), w, T, sgemm) == how
    got = of_floats(how, w, x)
    same_bits(got, ORDERS[how](dequantize(kind, w.rows)[None], rounding(kind, how)(x)[:, None]))


def test_half_floats_in_amx_leave_activations_as_they_are():
    w, x = Packed(Q.F16, 2, 32, 64), tokens(3, 2, 64)
    w.name, amx = "blk.0.ffn_up.weight", llamacpp(DEFAULT, compiled_for(JUDGE, SAPPHIRERAPIDS))
    rows = dequantize(Q.F16, w.rows)[None]
    same_bits(amx.linear(w, x), dot_sgemm(rows, x[:, None], lanes=16))
    without = llamacpp(replace(DEFAULT, repack=False), compiled_for(JUDGE, SAPPHIRERAPIDS))
    same_bits(without.linear(w, x), dot_sgemm(rows, ROUNDED[Q.F16](x)[:, None], lanes=16))


@pytest.mark.parametrize("kind", only([Q[name] for name in sorted(SAPPHIRERAPIDS.amx - {"F16"})], Q.Q4_1), ids=name_of)
@given(seed=seeds(), T=st.integers(1, 9), blocks=st.integers(1, 4))
def test_amx_takes_what_has_rows_in_thirty_twos(kind, seed, T, blocks):
    """All tokens by one path; experts, and matrices with other rows, go where they go without it."""
    build, plain = compiled_for(JUDGE, SAPPHIRERAPIDS), compiled_for(JUDGE, INSTRUCTIONS["zen4"])
    for O in (32, 24):
        w, x = Packed(kind, seed, O, blocks), tokens(seed, T, blocks * QUANTS[kind].WEIGHTS)
        path = getattr(ops, PATHS[kind].amx)
        want = path(integers(kind, w.rows), QUANTIZERS[PATHS[kind].partner](x)) if O == 32 else linear(DEFAULT, plain, w, x)
        same_bits(linear(DEFAULT, build, w, x), want)
        same_bits(linear_of_expert(DEFAULT, build, w, x), linear_of_expert(DEFAULT, plain, w, x))


@pytest.mark.parametrize("T", only([1, 3, 4, 9], 4))
def test_q2_k_is_repacked_for_wide_registers_only(T):
    w, x = Packed(Q.Q2_K, 5, 16, 2), tokens(5, T, 512)
    whole, rounded = integers(Q.Q2_K, w.rows), q8_k.quantize(x)
    w.name, fours = "blk.0.ffn_up.weight", T // 4 * 4
    wide = llamacpp(DEFAULT, compiled_for(JUDGE, INSTRUCTIONS["skylakex"])).linear(w, x)
    halves, sums = ops.halves_of_q2_k(whole, rounded), ops.sums_of_q4_k(whole, rounded)
    same_bits(wide, np.concatenate([halves[:fours], sums[fours:]]))
    same_bits(llamacpp(DEFAULT).linear(w, x), (ops.super_blocks if T >= 8 else ops.lanes_of_q2_k)(whole, rounded))


@pytest.mark.parametrize("kind", only([Q.IQ4_NL, Q.MXFP4], Q.MXFP4), ids=name_of)
@given(seed=seeds(), N=st.integers(1, 6))
def test_a_last_block_alone_is_fused_or_not(kind, seed, N):
    w, x = Packed(kind, seed, 3, N), tokens(seed, 1, 32 * N)
    if kind == Q.MXFP4:
        w.rows = w.rows.copy()
        w.rows.reshape(3, N, 17)[:, :, 0] = 125
    whole = integers(kind, w.rows)
    for which in INSTRUCTIONS.values():
        rounded = q8_0.quantize(q8_0.plainly(x) if which.plainly else x)
        fuses = which.name not in ("skylakex", "zen4")
        path = ops.alternating_lanes if fuses else ops.alternating_lanes_rounded
        same_bits(llamacpp(DEFAULT, compiled_for(JUDGE, which)).linear(w, x), path(whole, rounded))


@given(seed=seeds(), N=st.integers(1, 4), ties=st.booleans())
def test_without_avx_tokens_are_rounded_by_the_c_version(seed, N, ties):
    """Its loop, number by number: the factor is 1 / d, and a tie goes away from zero."""
    x = tokens(seed, 2, 32 * N)
    if ties:  # 127 is the largest, so that d is 1
        x = np.clip(np.round(2 * x) / 2, -126.5, 126.5).astype(f32)
        x[:, ::32] = 127
    found = q8_1.quantize(q8_0.plainly(x))
    for t, n in np.ndindex(2, N):
        block = x[t, 32 * n : 32 * n + 32]
        d = np.abs(block).max() / f32(127)
        factor = f32(1) / d if d else f32(0)
        codes = [math.floor(abs(float(value * factor)) + 0.5) * (1 if value > 0 else -1) for value in block]
        assert found.codes[t, n].tolist() == codes
        assert found.d[t, n] == f32(np.float16(d))
        assert found.sums[t, n] == f32(np.float16(d * f32(sum(codes))))


def test_tokens_that_are_not_finite_stay_as_they_are():
    x = np.array([[np.inf, 1, *[0.5] * 30], [*[0.0] * 32], [np.nan, *[2.0] * 31]], f32)
    same_bits(q8_0.plainly(x), x)


def test_a_build_says_which_instructions_it_uses():
    def say(features):
        builds = builds_of({"commit": "0c1e570-dirty", "features": features})
        return [build.instructions.name for build in builds if build.commit == JUDGE.commit]

    assert builds_of({"commit": "0c1e570"}) == [JUDGE]
    assert say("AVX AVX2") == ["avx2"]
    assert say("AVX AVX2 AVX512") == ["skylakex"]
    assert say("AVX AVX2 AVX512 AVX512_BF16 AVX512_VNNI") == ["zen4", "zen4-fp16"]
    assert say("AVX AVX2 AVX512 AVX512_BF16 AMX_INT8") == ["sapphirerapids", "sapphirerapids-fp16", "zen4", "zen4-fp16"]
    assert say("AVX") == say("") == []
    assert builds_of({"commit": "1234567"}) == builds_of({"commit": "02805ee"}) == []
