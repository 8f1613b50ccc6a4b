"""`refmodel info` tells what a model computes besides its tensors: each fact, in words and as a number."""

import json
import math

import pytest
import tiny
from test_live import RNJ, YARN
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.info.computed import facts, words
from refmodel.info.summary import summary
from refmodel.surgery.runtimes import not_in_a_copy


def built(folder, arch, **shape):
    return refmodel.load(tiny.build(folder / "m.gguf", arch, seed=3, **shape))


ROPE = {  # shape -> words of the row RoPE, and numbers below facts["rope"]
    "plain": ({}, "base 10000, 10 of 10 dims, pairs 2i and 2i + 1", {"scaling": "none", "factor": 1.0, "magnitude": 1.0}),
    "linear": (
        {"scaling": {"type": "linear", "factor": 8.0}},
        "pairs 2i and 2i + 1; all angles are divided by 8 (linear scaling)",
        {"scaling": "linear", "factor": 8.0, "context": None},
    ),
    "magnitude": (
        {"scaling": {"type": "none", "attn_factor": 1.25}},
        "pairs 2i and 2i + 1; what is rotated is multiplied by 1.25",
        {"scaling": "none", "factor": 1.0, "magnitude": 1.25},
    ),
    "yarn": (
        {"D": 64, "n_rot": 64, "scaling": {**YARN, "original_context_length": 4096}},
        "YaRN with factor 4 over 4096 tokens: pairs 0 to 10 keep their angle (32 turns and more), those from 23 on are divided by "
        "4 (1 turn or less), those between by a part of it; what is rotated is multiplied by 1.13863",
        {"scaling": "yarn", "factor": 4.0, "context": 4096, "kept": 10, "ramp": 22},
    ),
}


@pytest.mark.parametrize("name", ROPE)
def test_rope_and_its_scaling(name, tmp_path):
    shape, said, numbers = ROPE[name]
    model = built(tmp_path, "llama", **shape)
    assert words(model)["RoPE"].endswith(said)
    found = facts(model)["rope"]
    assert {key: found[key] for key in numbers} == numbers


def test_yarns_magnitude_and_the_context_that_it_takes_without_its_key(tmp_path):
    model = built(tmp_path, "qwen3", D=64, n_rot=64, context=2048, scaling={"type": "yarn", "factor": 16.0})
    found = facts(model)["rope"]
    assert found["context"] == 2048
    assert found["magnitude"] == pytest.approx(1 + 0.1 * math.log(16), rel=1e-6)  # rounded to float32 as llama.cpp does
    assert "YaRN with factor 16 over 2048 tokens" in words(model)["RoPE"]


def test_divisors_of_the_angles(tmp_path):
    model = built(tmp_path, "llama", rope_freqs=True)
    least, most = facts(model)["rope"]["divisors"]
    assert 0 < least < most == max(model.hp.rope.factors)
    assert f"rope_freqs.weight divides the angle of each pair, by {least:g} to {most:g}" in words(model)["RoPE"]
    assert facts(built(tmp_path, "qwen2"))["rope"]["divisors"] is None


def test_partly_rotated_heads(tmp_path):
    model = built(tmp_path, "qwen35")
    assert "10 of 14 dims, pairs i and i + 5 (NeoX); the other 4 stay as they are" in words(model)["RoPE"]
    assert facts(model)["rope"]["dims"] == 10


def test_sliding_blocks_have_a_base_of_their_own_and_no_scaling(tmp_path):
    model = built(tmp_path, "gemma3", D=32, n_rot=32, scaling=RNJ)
    said, found = words(model), facts(model)
    assert said["RoPE, sliding"].startswith("base 500, 32 of 32 dims")
    assert "YaRN" in said["RoPE"]
    assert "YaRN" not in said["RoPE, sliding"]
    assert (found["rope_sliding"]["base"], found["rope_sliding"]["scaling"]) == (500.0, "none")
    assert found["window"] == 4
    assert "the last 4 tokens, itself among them" in summary(model)["sliding"]
    none = built(tmp_path, "gemma3", window=0)
    assert facts(none)["window"] is None
    assert "RoPE, sliding" not in words(none)


def test_scales_of_embedding_and_queries_and_the_cap_of_logits(tmp_path):
    gemma = built(tmp_path, "gemma3", softcap=30.0)
    said, found = words(gemma), facts(gemma)
    assert said["embedding"] == "times √22 = 4.69042"
    assert found["embedding_scale"] == math.sqrt(22)
    assert said["queries"] == "times 10^-0.5 = 0.316228"
    assert (found["query_scale"], found["query_scale_of"]) == (10**-0.5, 10)
    assert said["logits"] == "30 · tanh(x / 30)"
    assert found["logit_softcap"] == 30.0
    other = built(tmp_path, "qwen3")
    assert not {"embedding", "logits"} & words(other).keys()
    assert (facts(other)["embedding_scale"], facts(other)["logit_softcap"]) == (1.0, None)


def test_the_query_scale_of_the_27b(tmp_path):
    model = built(tmp_path, "gemma3", n_layer=62, E=24, alike="24 / 6 is not the head's size")
    assert words(model)["queries"] == "times 4^-0.5 = 0.5, n_embd / heads: llama.cpp takes 62 blocks for the 27B"
    assert (facts(model)["query_scale"], facts(model)["query_scale_of"]) == (0.5, 4)
    assert "the source has 62, the copy would have 61 and would lose that" in not_in_a_copy(model)[0]
    assert "the copy would have 62 and would get that" in not_in_a_copy(built(tmp_path, "gemma3"))[0]


def test_what_is_renormalized(tmp_path):
    shares = "the shares of the 5 chosen experts, by their sum, after a softmax over all 7"
    heads = "each query and key of attention, by an RMS norm with weights, before RoPE"
    delta = "each query and key of the delta rule, to length 1, and each head's output, by an RMS norm with weights"
    for arch, expected in {
        "llama": [], "qwen2": [], "qwen3": [heads], "qwen3moe": [heads, shares], "gemma3": [heads],
        "qwen35": [heads, delta], "qwen35moe": [heads, delta, shares], "qwen3next": [heads, delta, shares],
    }.items():  # fmt: skip
        model = built(tmp_path, arch)
        assert facts(model)["renormalized"] == expected
        assert words(model).get("renormalized", "") == "; ".join(expected)
        assert words(model).get("experts", "") == ("5 of 7 for each token" if shares in expected else "")


def test_what_kinds_follow_from(tmp_path):
    for arch, shape, said in (
        ("qwen35", {}, "by qwen35.full_attention_interval = 3"),
        ("qwen35", {"recurrent": [1, 0, 0, 1, 1]}, "as qwen35.attention.recurrent_layers lists them"),
        ("gemma3", {}, "by gemma3.attention.sliding_window_pattern = 3"),
        ("gemma3", {"window": 0}, "gemma3.attention.sliding_window is missing, so no block is sliding"),
    ):
        assert said in summary(built(tmp_path, arch, **shape))["kinds"]


def test_what_a_copy_would_lose(tmp_path):
    assert not_in_a_copy(built(tmp_path, "llama")) == []
    delta, last = not_in_a_copy(built(tmp_path, "qwen35", n_nextn=1))
    assert "recurrent_layers says which blocks are delta; a runtime that reads no list takes them by place" in delta
    assert "the prediction block stays last" in last


def test_info_prints_the_facts_and_has_them_in_json(tmp_path):
    path = built(tmp_path, "gemma3", softcap=30.0, scaling={"type": "linear", "factor": 8.0}).path
    shown = " ".join(CliRunner().invoke(app, ["info", str(path)]).stdout.split())
    for said in ("all angles are divided by 8", "30 · tanh(x / 30)", "times √22", "a copy llama.cpp knows by 62 blocks"):
        assert said in shown
    found = json.loads(CliRunner().invoke(app, ["info", str(path), "--json"]).stdout)["facts"]
    assert found["rope"]["factor"] == 8.0
    assert found["kinds_from"] == "by gemma3.attention.sliding_window_pattern = 3"
    assert "62 blocks" in found["not_in_a_copy"][0]
    assert set(found) >= {"rope", "rope_sliding", "embedding_scale", "query_scale", "logit_softcap", "window", "renormalized"}


def test_queries_that_grow(tmp_path):
    model = built(tmp_path, "mistral3", temperature=0.25)
    said = "times 10^-0.5 = 0.316228; at position p each grows by 0.25 · ln(1 + p // 4) of itself"
    assert words(model)["queries"] == said
    assert facts(model)["query_growth"] == {"by": 0.25, "context": 4}
    assert facts(built(tmp_path, "mistral3", temperature=0.0, scaling={}))["query_growth"] is None


def test_pairs_that_text_does_not_turn(tmp_path):
    model = built(tmp_path, "qwen35", sections=(1, 3, 1))
    still = facts(model)["rope"]["still"]
    assert still == sum(math.isinf(factor) for factor in model.hp.rope.factors) > 0
    assert f"text does not turn {still} of the pairs" in words(model)["RoPE"]
    assert facts(built(tmp_path, "qwen35"))["rope"]["still"] == 0
