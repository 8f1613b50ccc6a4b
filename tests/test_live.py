"""Beside a real llama.cpp: every node, random routes, quantized files, a trained model. Skipped by name where none is installed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from english import TEXT
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import FLOAT_ORDER, nmse, same_bits
from strategies import examples

import refmodel
from refmodel.arch import ARCHITECTURES, HYBRID
from refmodel.compare.dequantized import dequantized
from refmodel.compare.other_side import compare, from_trace
from refmodel.compare.verdict import judge
from refmodel.errors import OracleError, RouteError
from refmodel.forward.taps import in_call
from refmodel.forward.trace import Trace
from refmodel.gguf.reader import read
from refmodel.llamacpp.nodes import FOLDER, table
from refmodel.llamacpp.oracle import locate, record
from refmodel.llamacpp.profile import PROFILES, profile_of
from refmodel.numerics import numerics_of
from refmodel.surgery.live import live

pytestmark = pytest.mark.live

PROMPT, STEPS = [84, 104, 101, 220, 9, 77, 31, 200, 5], [[12], [200], [44], [7], [7], [90], [131], [2]]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / f"{request.param}.gguf"
    return refmodel.load(
        tiny.build(path, request.param, seed=22, **({"n_layer": 4, "interval": 2} if request.param in HYBRID else {}))
    )


def other_side(model, route, calls, folder, lib, profile="exact", dequantize=False):
    return live(model, model.route(route), calls, profile_of(profile), lib, dequantize, folder)


def compared(model, other, numerics, anchor=""):
    return compare(model, model.route(other.route), other, numerics_of(numerics), anchor, lambda name: None)


def first_wrong(model, other):
    return judge(model, model.route(other.route), other, lambda name: None).first


def furthest(result):
    """The largest NMSE of a tensor, but not of one number a token: a sum near zero may have nothing to be small against."""
    return max(row.nmse for row in result.rows if not row.name.startswith("shared_expert_gate"))


@pytest.mark.parametrize("anchor", ["", "block", "node"])
@pytest.mark.parametrize("numerics", ["reference", "oracle"])
def test_every_node_of_prefill_and_eight_steps(model, numerics, anchor, tmp_path, llama_lib):
    result = compared(model, other := other_side(model, None, [PROMPT, *STEPS], tmp_path, llama_lib), numerics, anchor)
    assert first_wrong(model, other) is None
    assert furthest(result) <= max(FLOAT_ORDER, ROUNDED.get(model.architecture, 0.0))
    assert len(result.logits) == len(PROMPT) + len(STEPS)
    assert {row.name for row in result.rows} == set(other.taps)


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
# Rnj-1's: llama.cpp reads the last four for other architectures only
RNJ = {"type": "yarn", "factor": 4.0, "original_context_length": 8192}
RNJ |= {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_beta_fast": 64.0, "yarn_beta_slow": 1.0}
# Ministral's, but for a context of the training that a test can go beyond
OWN = {"type": "yarn", "factor": 4.0, "original_context_length": 6, "yarn_log_multiplier": 1.0}
VARIANTS = {
    **{f"{arch}, biases": (arch, {"biases": module.BIASED}) for arch, module in ARCHITECTURES.items()},
    **{f"{arch}, scales and biases": (arch, {"scales": True, "biases": tiny.QKV}) for arch in sorted(HYBRID)},
    "qwen2, biases of the head too": ("qwen2", {"biases": [*tiny.QKV, "output"], "tied": True}),
    "qwen2, scales and a bias of the head": ("qwen2", {"biases": ["output"], "scales": True}),
    "llama, divisors": ("llama", {"rope_freqs": True}),
    "llama, linear": ("llama", {"scaling": {"type": "linear", "factor": 3.0, "attn_factor": 1.25}}),
    "llama, yarn": ("llama", {"scaling": YARN}),
    "qwen2, yarn": ("qwen2", {"scaling": YARN | {"attn_factor": 0.75}}),
    "llama, yarn and a short context of the training": ("llama", {"scaling": YARN | {"factor": 3.7, "original_context_length": 0}}),
    "llama, yarn by half": ("llama", {"scaling": YARN | {"factor": 0.5}}),
    "qwen35, yarn": ("qwen35", {"scaling": YARN | {"factor": 2.9}, "D": 40, "n_rot": 18}),
    "qwen3next, yarn": ("qwen3next", {"scaling": YARN | {"factor": 11.1}, "D": 40, "n_rot": 20}),
    "mistral3, yarn": ("mistral3", {"scaling": OWN}),
    "mistral3, yarn with numbers of its own": ("mistral3", {"scaling": OWN | {"yarn_beta_fast": 0.5, "yarn_beta_slow": 0.05}}),
    "mistral3, yarn that takes off more": ("mistral3", {"scaling": OWN | {"factor": 7.3, "yarn_log_multiplier": 0.7}}),
    "mistral3, yarn by half": ("mistral3", {"scaling": OWN | {"factor": 0.5}}),
    "mistral3, no growth": ("mistral3", {"temperature": 0.0}),
    "lfm2, attention first": ("lfm2", {"recurrent": [False, True, True, False], "scaling": YARN}),
    "lfm2, long convolutions": ("lfm2", {"K": 5, "tied": True}),
    "llama, experts": ("llama", {"experts": 7}),
    "llama, one expert": ("llama", {"experts": 7, "used": 1}),
    "llama, experts, scales and biases": ("llama", {"experts": 7, "scales": True, "biases": [*tiny.QKV, "attn_output"]}),
    "gemma3, no window": ("gemma3", {"window": 0, "n_layer": 2}),
    "gemma3, yarn and no window": ("gemma3", {"window": 0, "n_layer": 2, "D": 32, "n_rot": 32, "softcap": 1.5, "scaling": RNJ}),
    "gemma3, yarn": ("gemma3", {"D": 32, "n_rot": 32, "scaling": YARN | {"factor": 7.3, "attn_factor": 1.3}}),
    "gemma3, linear": ("gemma3", {"scaling": {"type": "linear", "factor": 8.0}}),
    "gemma3, capped logits": ("gemma3", {"softcap": 1.5}),
    "qwen3moe, one expert": ("qwen3moe", {"used": 1}),
    "qwen35moe, one expert": ("qwen35moe", {"used": 1}),
    "qwen3next, one expert": ("qwen3next", {"used": 1}),
    "qwen3next, as many key heads as value heads": ("qwen3next", {"Hv": 3, "alike": "that is what is tried"}),
    "qwen35moe, as many key heads as value heads": ("qwen35moe", {"Hv": 3, "alike": "that is what is tried"}),
    "llama, scales and biases": ("llama", {"scales": True, "biases": [*tiny.QKV, "attn_output"]}),
    **{f"{arch}, scales": (arch, {"scales": True}) for arch in ARCHITECTURES},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_file_may_have_beyond_its_architecture(name, tmp_path, llama_lib):
    arch, shape = VARIANTS[name]
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=7, **shape))
    for profile, numerics in (("exact", "reference"), ("default", "llamacpp")):
        other = other_side(model, None, [PROMPT, *STEPS[:2]], tmp_path, llama_lib, profile)
        result = compared(model, other, numerics)
        assert first_wrong(model, other) is None
        assert numerics == "reference" or not any(row.differ for row in result.rows)


FUSED = {
    **{f"{arch}, attention": (arch, {"fused": ["attn_qkv"]}) for arch in ARCHITECTURES},
    **{f"{arch}, attention with a bias": (arch, {"fused": ["attn_qkv"], "biases": tiny.QKV}) for arch in ARCHITECTURES},
    **{f"{arch}, biases apart": (arch, {"fused": ["attn_qkv.weight"], "biases": tiny.QKV}) for arch in ("llama", "qwen3next")},
    **{f"{arch}, biases and scales": (arch, {"fused": ["attn_qkv"], "biases": tiny.QKV, "scales": True}) for arch in ARCHITECTURES},
    "llama, experts": ("llama", {"experts": 7, "fused": ["attn_qkv"]}),
    "qwen35moe, experts": ("qwen35moe", {"fused": ["ffn_gate_up_exps"]}),
    "qwen35moe, experts and scales": ("qwen35moe", {"fused": ["ffn_gate_up_exps"], "scales": True}),
    "qwen3next, old files": ("qwen3next", {"fused": ["ssm_in"]}),
    "qwen3next, all": ("qwen3next", {"fused": ["attn_qkv", "ffn_gate_up_exps", "ssm_in"]}),
    "qwen3next, all with scales": ("qwen3next", {"fused": ["attn_qkv", "ffn_gate_up_exps", "ssm_in"], "scales": True}),
}


@pytest.mark.parametrize("name", FUSED)
def test_matrices_that_a_file_stores_as_one(name, tmp_path, llama_lib):
    arch, shape = FUSED[name]
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=7, **shape))
    for profile in ("exact", "default"):
        other = other_side(model, None, [PROMPT, *STEPS[:2]], tmp_path, llama_lib, profile)
        for numerics in ("reference", f"llamacpp:{profile}") if profile == "exact" else ("llamacpp",):
            result = compared(model, other, numerics)
            assert first_wrong(model, other) is None
            assert {row.name for row in result.rows} == set(other.taps)
            assert numerics == "reference" or not any(row.differ for row in result.rows)


AS_ONE = {"llama": ["attn_qkv"], "qwen35": ["attn_qkv"], "qwen3next": ["attn_qkv", "ffn_gate_up_exps", "ssm_in"]}
WRONG = {  # the matrix that is wrong in block 2 -> the first wrong row, and llama.cpp's operation behind it
    ("llama", "attn_qkv"): "Qcur-2 (MUL_MAT)",
    ("qwen35", "attn_qkv"): "Qcur_full-2 (MUL_MAT)",
    ("qwen3next", "ffn_gate_up_exps"): "ffn_moe_gate-2 (MUL_MAT_ID)",
}


@pytest.mark.parametrize("anchor", ["", "--anchor", "--anchor-nodes"])
@pytest.mark.parametrize("arch", AS_ONE)
def test_the_command_line_compares_matrices_stored_as_one(arch, anchor, tmp_path, llama_lib):
    path = tiny.build(tmp_path / "m.gguf", arch, seed=7, fused=AS_ONE[arch])
    for numerics in ("reference", "llamacpp"):
        words = ["diff", path, "--tokens", "84,104,101,12", "--decode", "1", "--numerics", numerics, "--llama-lib", llama_lib]
        done = refmodel_command(*words, *filter(None, [anchor]))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.rstrip().splitlines()[-1].startswith(("EQUAL", "EXPLAINED"))


@pytest.mark.parametrize(("arch", "whole"), WRONG)
def test_the_first_wrong_operation_is_named_where_matrices_are_stored_as_one(arch, whole, tmp_path, llama_lib):
    path, wrong = (tiny.build(tmp_path / f"{name}.gguf", arch, seed=7, fused=AS_ONE[arch]) for name in "ab")
    tensor = read(wrong).tensors[f"blk.2.{whole}.weight"]
    with open(wrong, "r+b") as file:
        file.seek(path.read_bytes().index(tensor.data.tobytes()))
        file.write(np.float32(3).tobytes())  # the first weight
    out = tmp_path / "t.safetensors"
    record(wrong, [PROMPT], PROFILES["exact"], out, llama_lib, provenance={"route": refmodel.load(path).route().canonical})
    done = refmodel_command("diff", path, "--against", out)
    assert done.returncode == 1, done.stderr
    assert f"WRONG, first at {WRONG[arch, whole]}: " in done.stdout


def refmodel_command(*words):
    return subprocess.run([sys.executable, "-m", "refmodel", *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("length", [70, 600])
def test_a_window_that_slides_over_pages_and_tiles(length, tmp_path, llama_lib):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", seed=7, n_layer=2, interval=2, window=66, context=1024))
    calls = [list(np.random.default_rng(1).integers(0, 256, length)), [5], [6, 7, 8]]
    for profile in ("default", "fa=off", "threads=2"):
        other = other_side(model, None, [list(map(int, call)) for call in calls], tmp_path, llama_lib, profile)
        result = compared(model, other, f"llamacpp:{profile}")
        assert {row.name for row in result.rows} == set(other.taps)
        assert not any(row.differ for row in result.rows)


def test_every_emitted_node_is_compared_or_has_a_reason(model, tmp_path, llama_lib):
    for name in PROFILES:
        record(model.path, [PROMPT, [3]], PROFILES[name], out := tmp_path / f"{name}.safetensors", llama_lib)
        trace = Trace(out)
        for call, nodes in enumerate(json.loads(trace.metadata["nodes"])):
            assert len(nodes) > 50
            for node in nodes:
                assert node["reason"] or in_call(node["tap"], call) in trace


@pytest.mark.parametrize(("profile", "section"), [("exact", "attention fa=off"), ("default", "attention fa=on")])
def test_a_new_table_begins_with_what_nodes_py_prints(profile, section, llama_lib):
    """Without a table it prints, in order, the operations and names of which a table consists."""
    script, env = FOLDER.parent / "nodes.py", os.environ | {"REFMODEL_LLAMA_LIB": str(llama_lib)}
    printed = subprocess.run([sys.executable, script, "lfm2", profile], capture_output=True, text=True, check=True, env=env).stdout
    graph = [[tuple(line.split(None, 1)) for line in part.splitlines()] for part in printed.split("\n\n")]
    known = {name: [(entry.op, entry.name) for entry in entries] for name, entries in table("lfm2").sections.items()}
    assert set(graph[0]) == set(known["head"])
    for nodes, name in zip(graph[1:], ["conv", "conv", section, "conv"], strict=True):
        assert set(nodes) <= {*known[name], *known["tail"]}
        assert ("ADD", "l_out-N") in nodes


# In these llama.cpp's own rounding exceeds 1e-10 in intermediates of some routes (experts nearly cancel; GELU is read from a table
# of half floats), which numerics llamacpp follows at every node. What they allow for the logits of one token:
ROUNDED = {"qwen35moe": 1e-9, "qwen3next": 1e-9, "gemma3": 1e-5}


@settings(max_examples=examples(12))
@given(data=st.data())
def test_random_routes(model, tmp_path, llama_lib, data):
    """Skips, reversals, triple visits, several windows, against the materialised file."""
    n = model.n_layer
    windows = st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda w: w[0] < w[1]), min_size=1, max_size=2)
    texts = windows.map(lambda ws: "blocks:" + ";".join(f"{i},{j}" for i, j in ws))
    route = model.route(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n) | texts))
    assume(model.architecture not in HYBRID or len({model.kinds[layer] for layer in route.layers}) == 2)
    calls = [PROMPT, *STEPS[:2]]
    other = other_side(model, route, calls, tmp_path, llama_lib)
    assert first_wrong(model, other) is None
    for numerics in ("oracle", "reference"):
        result = compared(model, other, numerics)
        assert max(row.nmse for row in result.logits) <= ROUNDED.get(model.architecture, 1e-10)


def test_reference_is_no_further_from_the_truth_than_ten_times_llama_cpp(model, tmp_path, llama_lib):
    other = other_side(model, None, [PROMPT], tmp_path, llama_lib)
    exact, theirs = model.forward(PROMPT, numerics="oracle"), other.taps["result_output"]
    assert nmse(model.forward(PROMPT), exact) <= 10 * nmse(theirs, exact)


def test_taking_tensors_changes_no_bit(model, tmp_path, llama_lib):
    calls = [PROMPT, *STEPS[:3]]
    for profile in PROFILES.values():
        with_taps, without = (
            Trace(record(model.path, calls, profile, tmp_path / f"{taps}.safetensors", llama_lib, taps=taps).path)
            for taps in (True, False)
        )
        for call in range(len(calls)):
            name = in_call("result_output", call)
            same_bits(with_taps[name].reshape(-1), without[name].reshape(-1))


def test_logits_of_the_last_tokens_alone(model, tmp_path, llama_lib):
    """llama.cpp then runs what follows the last attention for one token: in F32 that may be another path than for several."""
    calls = [PROMPT, *STEPS[:2]]
    out = record(model.path, calls, PROFILES["default"], tmp_path / "t.safetensors", llama_lib, taps=False, last=True).path
    session = model.session(numerics="llamacpp")
    for call, tokens in enumerate(calls):
        ours, theirs = session.forward(tokens, "last")[0], np.array(Trace(out)[in_call("result_output", call)])
        assert nmse(ours, theirs) <= 1e-12
        if len(tokens) == 1:
            same_bits(ours, theirs)
    with pytest.raises(OracleError, match="recorded without taps"):
        record(model.path, calls, PROFILES["default"], tmp_path / "t.safetensors", llama_lib, last=True)


def test_a_hybrid_with_one_kind_of_block_is_reported_before_llama_cpp_aborts(tmp_path, llama_lib):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=1))
    with pytest.raises(RouteError, match=r"keeps only delta blocks: llama\.cpp aborts"):
        other_side(model, [0, 1, 0], [PROMPT], tmp_path, llama_lib)
    only = tiny.build(tmp_path / "only.gguf", "qwen35", seed=1, n_layer=2, recurrent=[True, True])
    with pytest.raises(OracleError, match=r"llama\.cpp was ended by SIGABRT: .*GGML_ASSERT"):
        record(only, [PROMPT], PROFILES["exact"], tmp_path / "t.safetensors", llama_lib)
    assert not (tmp_path / "t.safetensors").exists()


def test_a_file_that_llama_cpp_refuses_is_reported_with_its_words(tmp_path, llama_lib):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(OracleError, match=r"bad\.gguf is not loaded by llama\.cpp: .*\w"):
        record(tmp_path / "bad.gguf", [PROMPT], PROFILES["exact"], tmp_path / "t.safetensors", llama_lib)


COPIED = ["llama-Q4_K_M", "qwen3-Q5_K_M", "qwen35-Q4_K_M", "qwen35-Q6_K", "qwen35-Q8_0"]


@pytest.mark.parametrize("name", [*COPIED, "austen-BF16", "austen-Q8_0", "austen-Q4_K_M"])
def test_quantized_files_agree_when_llama_cpp_runs_their_dequantized_copy(name, golden, tmp_path, llama_lib):
    model = refmodel.load(golden / "models" / f"{name}.gguf")
    for numerics in ("reference", "oracle"):
        other = other_side(model, None, [PROMPT, *STEPS[:2]], tmp_path, llama_lib, dequantize=True)
        assert first_wrong(model, other) is None
        assert furthest(compared(model, other, numerics)) <= FLOAT_ORDER


@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "llama-Q8_0"])
def test_dequantized_weights_have_the_bits_of_gguf_py(name, golden, tmp_path):
    import gguf
    from gguf.quants import dequantize

    model = refmodel.load(golden / "models" / f"{name}.gguf")
    theirs = gguf.GGUFReader(golden / "models" / f"{name}.gguf")
    ours = gguf.GGUFReader(dequantized(model.file, tmp_path / "d.gguf"))
    for a, b in zip(ours.tensors, theirs.tensors, strict=True):
        same_bits(np.array(a.data).reshape(-1), dequantize(b.data, b.tensor_type).astype(np.float32).reshape(-1))


def test_a_trained_model_over_a_few_hundred_tokens(smollm2, tmp_path, llama_lib):
    model = refmodel.load(smollm2)
    ids = model.tokenizer.encode(TEXT)
    assert len(ids) > 200
    exact = other_side(model, None, [ids], tmp_path, llama_lib, dequantize=True)
    result = compared(model, exact, "reference")
    assert first_wrong(model, exact) is None
    decided = [row for row in result.logits if not row.near_tie]
    assert len(decided) > 100
    assert all(row.top1_ours == row.top1_theirs for row in decided)
    rounded = other_side(model, None, [ids], tmp_path, llama_lib)
    by_rounding = nmse(rounded.taps["result_output"], exact.taps["result_output"])
    assert nmse(model.forward(ids), rounded.taps["result_output"]) <= 2 * by_rounding


def test_a_trained_model_writes_english(smollm2):
    from refmodel.text.generate import generate

    model = refmodel.load(smollm2)
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = model.tokenizer.encode(prompt, parse_special=True)
    written = model.tokenizer.decode(generate(model.session(), ids, 12))
    assert "Paris" in written


def test_the_library_is_found_where_it_is_said_to_be(llama_lib, monkeypatch):
    assert locate(llama_lib).path.samefile(llama_lib)
    assert locate(llama_lib.parent).path.samefile(llama_lib)
    monkeypatch.setenv("REFMODEL_LLAMA_LIB", str(llama_lib))
    assert locate().path.samefile(llama_lib)


def test_a_record_can_be_compared_again(model, tmp_path, llama_lib):
    other_side(model, None, [PROMPT], tmp_path, llama_lib)
    again = from_trace(Trace(tmp_path / "llamacpp.safetensors"))
    assert first_wrong(model, again) is None
