"""Numerics `fast`: what it computes, how far that is from float32, and what does not change its bits."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import given
from hypothesis import strategies as st
from near import nmse, same_bits
from shares import name_of, only, share
from strategies import activations, seeds
from test_golden import GOLDEN, MANIFEST, QUANTIZED, of_name
from test_kernels_linear import Packed, exact_product, size_of_sums
from test_packed_products import packed

import refmodel
from refmodel.numerics import FAST, REFERENCE
from refmodel.ops.ggml_paths import PATHS, QUANTIZERS


@pytest.mark.parametrize("kind", only(PATHS, Q.Q8_0, Q.Q5_1, Q.Q4_K, Q.Q6_K), ids=name_of)
@given(seed=seeds(), T=st.integers(1, 9), O=st.integers(1, 20))
def test_a_product_is_the_exact_one_of_rounded_tokens(kind, seed, T, O):
    w = packed(kind.name, seed, O, 2)
    x = activations(np.random.default_rng(seed), T, w.shape[1])
    a = QUANTIZERS[PATHS[kind].partner](x)
    rounded = (a.d[..., None] * a.codes).reshape(x.shape)
    exact, got = exact_product(w, rounded), FAST.linear(w, x)
    # float32 sums of a few blocks; minima are taken away from sums that may be larger than the result
    slack = 1e-3 if PATHS[kind].partner == "q8_1" else 1e-5  # the sums of Q8_1 are half floats
    assert (np.abs(got - exact) <= slack * size_of_sums(w, rounded)).all()


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16], ids=lambda kind: kind.name)
def test_floats_are_multiplied_as_reference_multiplies_them(kind):
    w = Packed(kind, 3, 5, 40)
    x = np.random.default_rng(3).standard_normal((3, w.shape[1])).astype(np.float32)
    same_bits(FAST.linear(w, x), REFERENCE.linear(w, x))


@pytest.mark.parametrize("name", share(QUANTIZED, of_name))
def test_quantized_models_are_as_far_from_float32_as_llama_cpp_is(name):
    """Both round activations to 8 bits and differ only in the order of sums: twice llama.cpp's own distance is the bound.

    Of the median token: where a rounded router chooses another expert, a token of a mixture is further away.
    """
    model, trace = refmodel.load(GOLDEN / "models" / f"{name}.gguf"), f"traces/{name}/logits.safetensors"
    tokens = list(range(3, 43))
    pairs = zip(model.forward(tokens, numerics="fast"), model.forward(tokens), strict=True)
    assert np.median([nmse(ours, exact) for ours, exact in pairs]) <= 2 * MANIFEST[trace]["nmse_of_dequantized"]


@pytest.mark.parametrize(
    "name", only(["qwen35-Q4_K_M", "qwen35-Q8_0", "llama-Q6_K", "qwen3-Q5_K_M"], "qwen35-Q4_K_M", "qwen35-Q8_0")
)
def test_a_prompt_in_long_parts_and_steps_of_a_few_tokens_keep_their_bits(name):
    """Which order a product has depends on whether a call has a few tokens or many, and on nothing else."""
    model, tokens = refmodel.load(GOLDEN / "models" / f"{name}.gguf"), list(range(3, 33))

    def logits(*cuts):
        session = model.session(numerics="fast")
        return np.concatenate([session.forward(tokens[a:b]) for a, b in zip([0, *cuts], [*cuts, len(tokens)])])

    same_bits(logits(9, 17), logits(12))
    same_bits(logits(20, 21, 24, 27), logits(20, 22, 25, 28))
    assert nmse(logits(20, 21, 24, 27), logits()) <= 1e-4  # an 8-bit code may flip where a sum is rounded the other way
