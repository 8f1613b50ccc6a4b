"""Numerics `fast`: what it computes, how far that is from float32, and that no split of a prompt changes it."""

import json

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import given
from hypothesis import strategies as st
from near import nmse, same_bits
from strategies import seeds
from test_golden import GOLDEN, MANIFEST, QUANTIZED
from test_kernels_linear import Packed, exact_product, size_of_sums
from test_packed_products import packed

import refmodel
from refmodel.numerics import FAST, REFERENCE
from refmodel.ops.ggml_product import PATHS, QUANTIZERS


@pytest.mark.parametrize("kind", PATHS, ids=lambda kind: kind.name)
@given(seed=seeds(), T=st.integers(1, 9), O=st.integers(1, 20))
def test_a_product_is_the_exact_one_of_rounded_tokens(kind, seed, T, O):
    w = packed(kind.name, seed, O, 2)
    x = np.random.default_rng(seed).standard_normal((T, w.shape[1])).astype(np.float32)
    a = QUANTIZERS[PATHS[kind].partner](x)
    rounded = (a.d[..., None] * a.codes).reshape(x.shape)
    exact, got = exact_product(w, rounded), FAST.linear(w, x)
    # float32 sums of a few blocks; minima are taken away from sums that may be larger than the result
    assert (np.abs(got - exact) <= 1e-5 * size_of_sums(w, rounded)).all()


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16], ids=lambda kind: kind.name)
def test_floats_are_multiplied_as_reference_multiplies_them(kind):
    w = Packed(kind, 3, 5, 40)
    x = np.random.default_rng(3).standard_normal((3, w.shape[1])).astype(np.float32)
    same_bits(FAST.linear(w, x), REFERENCE.linear(w, x))


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_models_are_as_far_from_float32_as_llama_cpp_is(name):
    """Both round activations to 8 bits and differ only in the order of sums: twice llama.cpp's own distance is the bound."""
    model, trace = refmodel.load(GOLDEN / "models" / f"{name}.gguf"), f"traces/{name}/logits.safetensors"
    tokens = list(range(3, 43))
    found = nmse(model.forward(tokens, numerics="fast"), model.forward(tokens))
    assert found <= 2 * MANIFEST[trace]["nmse_of_dequantized"]


@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "qwen35-Q8_0", "llama-Q6_K", "qwen3-Q5_K_M"])
@pytest.mark.parametrize("cuts", [[1], [5, 6], [9, 17, 25]], ids=json.dumps)
def test_any_split_of_the_prompt_gives_the_same_bits(name, cuts):
    model, tokens = refmodel.load(GOLDEN / "models" / f"{name}.gguf"), list(range(3, 33))
    session = model.session(numerics="fast")
    parts = [session.forward(tokens[a:b]) for a, b in zip([0, *cuts], [*cuts, len(tokens)])]
    same_bits(np.concatenate(parts), model.forward(tokens, numerics="fast"))
