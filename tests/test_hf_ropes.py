"""RoPE that a folder says and no key of a GGUF can: each angle by transformers' formula, and a remark."""

import math

import hf_made
import numpy as np
import pytest
from hf_made import build

import refmodel
from refmodel.errors import MetadataError
from refmodel.info.computed import facts, words
from refmodel.info.summary import summary
from refmodel.ops.rope import speeds
from refmodel.surgery.verify import verify

N, BASE, CONTEXT = hf_made.D, 5e5, 64
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
COMMON = {"rope_theta": BASE, "original_max_position_embeddings": CONTEXT}
PARTLY = {"partial_rotary_factor": 0.6, "mrope_section": [1, 1, 1]}
WITHOUT_TENSOR = [kind for kind in hf_made.KINDS if kind not in ("llama", "mistral")]


def settings(kind, **rope):
    """rope_parameters of a kind of folder."""
    rope |= COMMON | (PARTLY if kind in hf_made.HYBRID else {})
    if kind == "gemma3":
        return {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    return rope


def llama3_speed(i, n):
    """A pair's angle at position 1: divided by 8 if it turns less than once in the context, as it is from 4 turns on."""
    plain = BASE ** (-2 * i / n)
    turns = CONTEXT * plain / (2 * math.pi)
    if turns < 1:
        return plain / 8
    return plain if turns > 4 else ((4 - turns) / 3) * plain / 8 + ((turns - 1) / 3) * plain


@pytest.mark.parametrize("kind", WITHOUT_TENSOR)
def test_llama3_in_an_architecture_without_a_tensor_for_it(kind, tmp_path):
    path = build(tmp_path / "folder", kind, rope_parameters=settings(kind, **LLAMA3))
    model = refmodel.load(path)
    n = model.hp.rope.n_rot
    np.testing.assert_array_max_ulp(speeds(model.hp.rope), np.array([llama3_speed(i, n) for i in range(n // 2)]), 8)
    assert "rope_freqs.weight" not in model.file.tensors
    assert ["llama3" in remark for remark in model.file.remarks].count(True) == 1
    assert "llama.cpp rotates by undivided angles" in summary(model)["a GGUF of it"]
    assert facts(model)["rope"]["divisors_in"] == "rope_type llama3"
    assert "rope_type llama3 divides the angle of each pair, by 1 to 8" in words(model)["RoPE"]
    other = refmodel.load(build(tmp_path / "other", kind, rope_parameters=settings(kind, rope_type="default")))
    assert not np.array_equal(model.forward(list(range(9))), other.forward(list(range(9))))
    assert not [remark for remark in other.file.remarks if "rope" in remark]


def yarn_speed(i, n, fast=32.0, slow=1.0, whole=True):
    """A pair's angle at position 1, by transformers' formula."""
    low, high = (n * math.log(CONTEXT / (turns * 2 * math.pi)) / (2 * math.log(BASE)) for turns in (fast, slow))
    low, high = (math.floor(low), math.ceil(high)) if whole else (low, high)
    low, high = max(low, 0), min(high, n - 1)
    kept = 1 - min(max((i - low) / (high - low), 0), 1)
    plain = BASE ** (-2 * i / n)
    return (1 - kept) * plain / 4 + kept * plain


USUAL = 0.1 * math.log(4) + 1
UNUSUAL = [  # numbers of YaRN, what is said of them, and (fast, slow, whole, magnitude)
    ({"beta_fast": 8.0}, "beta_fast of YaRN is 8, and llama.cpp takes 32", (8.0, 1.0, True, USUAL)),
    ({"beta_slow": 0.25}, "beta_slow of YaRN is 0.25, and llama.cpp takes 1", (32.0, 0.25, True, USUAL)),
    ({"truncate": False}, "truncate of YaRN is 0, and llama.cpp takes 1", (32.0, 1.0, False, USUAL)),
    ({"attention_factor": 1.5}, "attention_factor of YaRN is 1.5, and llama.cpp takes 1.13863", (32.0, 1.0, True, 1.5)),
    (
        {"mscale": 1.0, "mscale_all_dim": 0.5},
        "attention_factor of YaRN is 1.0648",
        (32.0, 1.0, True, USUAL / (0.05 * math.log(4) + 1)),
    ),
]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen35", "gemma3"])
@pytest.mark.parametrize(("numbers", "remark", "right"), UNUSUAL)
def test_yarn_with_numbers_of_its_own(kind, numbers, remark, right, tmp_path):
    model = refmodel.load(build(tmp_path / "folder", kind, rope_parameters=settings(kind, **YARN, **numbers)))
    fast, slow, whole, magnitude = right
    if kind == "gemma3" and not whole:  # where the class does not look for it
        assert not [one for one in model.file.remarks if "YaRN" in one]
        return
    n = model.hp.rope.n_rot
    expected = np.array([yarn_speed(i, n, fast, slow, whole) for i in range(n // 2)])
    np.testing.assert_array_max_ulp(speeds(model.hp.rope), expected, 8)
    assert math.isclose(model.hp.rope.magnitude, magnitude)
    assert [one for one in model.file.remarks if remark in one]
    assert "turns" not in words(model)["RoPE"]


HARMLESS = [{}, {"beta_fast": 32}, {"beta_slow": 1.0}, {"truncate": True}, {"mscale": 1.0}, {"attention_factor": USUAL}]


@pytest.mark.parametrize("numbers", HARMLESS)
def test_yarn_with_the_usual_numbers_has_no_remark(numbers, tmp_path):
    """One of mscale and mscale_all_dim says nothing."""
    model = refmodel.load(build(tmp_path / "folder", "qwen3", rope_parameters=settings("qwen3", **YARN, **numbers)))
    assert model.file.remarks == ()
    assert "(32 turns and more)" in words(model)["RoPE"]


def test_ministral_takes_off_what_it_says(tmp_path):
    """Its keys say mscale_all_dim, but not mscale."""
    rope = {**YARN, **COMMON, "beta_fast": 0.5, "beta_slow": 0.05, "mscale_all_dim": 0.75, "llama_4_scaling_beta": 0.5}
    said = {}
    for mscale in (0.7, 1.0):
        kind = {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
        path = build(tmp_path / str(mscale), "llama", **kind, rope_parameters=rope | {"mscale": mscale})
        model = refmodel.load(path)
        said[mscale] = model.file.remarks
        right = (0.1 * mscale * math.log(4) + 1) / (0.075 * math.log(4) + 1)
        assert math.isclose(model.hp.rope.magnitude, right, rel_tol=1e-6)
    assert "attention_factor of YaRN is 0.99" in said[0.7][0]
    assert said[1.0] == ()


def test_the_converters_keys(tmp_path):
    """It writes all numbers, though llama.cpp reads none of them here."""
    numbers = {"beta_fast": 64.0, "beta_slow": 2.0, "attn_factor": 1.0, "extrapolation_factor": 1.0}
    path = build(tmp_path / "folder", "gemma3", rope_parameters=settings("gemma3", **YARN, **numbers))
    md = refmodel.load(path).file.metadata
    found = {key: md[f"gemma3.rope.scaling.yarn_{key}"] for key in ("beta_fast", "beta_slow", "attn_factor", "ext_factor")}
    assert found == {"beta_fast": 64.0, "beta_slow": 2.0, "attn_factor": 1.0, "ext_factor": 1.0}


def test_what_only_one_folder_says_is_named(tmp_path):
    """Two folders with the same weights: the RoPE of one is lost in a GGUF, and is the first thing that verify names."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, numbers in zip(paths, (LLAMA3, {"rope_type": "default"}), strict=True):
        build(path, "qwen3", rope_parameters=settings("qwen3", **numbers))
    report = verify(paths[1], paths[0])
    assert report.verdict == "wrong"
    assert "rope" in report.findings[0][1].key


@pytest.mark.parametrize("numbers", [{"beta_slow": -1}, {"attention_factor": "big"}, {"mscale": 1.0, "mscale_all_dim": "x"}])
def test_numbers_that_are_none_are_named(numbers, tmp_path):
    path = build(tmp_path / "folder", "qwen3", rope_parameters=settings("qwen3", **YARN, **numbers))
    with pytest.raises(MetadataError, match="rope_parameters"):
        refmodel.load(path)
