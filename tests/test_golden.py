"""What golden/ says about other programs, held against what we compute now. Only golden/make.py writes there."""

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import straight
from near import FLOAT_ORDER, nmse
from shares import share

import refmodel
from refmodel.compare.other_side import compare, recorded
from refmodel.compare.verdict import judge
from refmodel.forward.taps import in_call
from refmodel.forward.trace import Trace
from refmodel.numerics import numerics_of

GOLDEN = Path(__file__).parent.parent / "golden"
MANIFEST = tomllib.loads((GOLDEN / "manifest.toml").read_text())["files"]
MODELS = sorted(path.stem for path in (GOLDEN / "models").glob("*.gguf") if path.stem != "qwen35-hf")
QUANTIZED = [name for name in MODELS if name.endswith(("-Q8_0", "-Q4_K_M", "-Q5_K_M", "-Q6_K"))]
ROUNDED = [*QUANTIZED, *(name for name in MODELS if name.endswith("-BF16"))]  # whose activations llama.cpp rounds
FLOATS = [name for name in MODELS if name not in ROUNDED]
ORACLE = {"gemma3": 1e-6}  # where llama.cpp reads GELU from a table of half floats
TEXTS = {"manifest.toml", "README.md", "austen/README.md"}


def of_name(name):
    """The architecture and the type of a model, or what else its name says; of types the common ones, and BF16."""
    return {part for part in name.split("-", 1) if part not in ("Q5_K_M", "Q6_K")}


def files():
    return {str(p.relative_to(GOLDEN)): p for p in GOLDEN.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_every_file_is_in_the_manifest_and_unchanged():
    found = {name: path for name, path in files().items() if name not in TEXTS and path.suffix != ".py"}
    assert set(found) == set(MANIFEST), "run golden/make.py"
    for name, path in found.items():
        assert path.stat().st_size == MANIFEST[name]["bytes"], f"{name} changed; run golden/make.py"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == MANIFEST[name]["sha256"], f"{name} changed; run golden/make.py"


def test_golden_stays_small():
    sizes = {name: path.stat().st_size for name, path in files().items()}
    assert sum(sizes.values()) < 51e6
    assert all(sizes[f"models/{name}.gguf"] <= 1e6 for name in FLOATS)


def logits(name, numerics):
    """Ours and llama.cpp's for the recorded calls, [T, V] each."""
    model, trace = refmodel.load(GOLDEN / "models" / f"{name}.gguf"), Trace(GOLDEN / "traces" / name / "logits.safetensors")
    session, calls = model.session(numerics=numerics), json.loads(trace.metadata["provenance"])["calls"]
    ours = np.concatenate([session.forward(call) for call in calls])
    theirs = np.concatenate([trace[in_call("result_output", k)].reshape(len(call), -1) for k, call in enumerate(calls)])
    return ours, theirs


@pytest.mark.parametrize("name", FLOATS)
def test_float_models_agree_with_llama_cpp(name):
    oracle, theirs = logits(name, "oracle")
    reference, _ = logits(name, "reference")
    assert nmse(oracle, theirs) <= ORACLE.get(name, 1e-11)  # what is left is llama.cpp's own float32 rounding
    assert nmse(reference, theirs) <= ORACLE.get(name, 1e-10)
    assert nmse(reference, oracle) <= 1e-10
    assert nmse(reference, oracle) <= 10 * nmse(theirs, oracle), "float32 here is much further from the truth than llama.cpp's"


@pytest.mark.parametrize("name", FLOATS)
def test_the_straight_line_forward_agrees_too(name):
    trace = Trace(GOLDEN / "traces" / name / "logits.safetensors")
    calls = json.loads(trace.metadata["provenance"])["calls"]
    exact, _ = straight.forward(GOLDEN / "models" / f"{name}.gguf", [token for call in calls for token in call])
    ours, theirs = logits(name, "oracle")
    assert nmse(exact, theirs) <= ORACLE.get(name, 1e-11)
    assert nmse(ours, exact) <= 1e-24


@pytest.mark.parametrize("name", ORACLE)
def test_the_same_table_leaves_nothing_but_rounding(name):
    ours, theirs = logits(name, "llamacpp:exact")
    assert nmse(ours, theirs) <= 1e-10


@pytest.mark.parametrize("name", share(ROUNDED, of_name))
def test_quantized_models_differ_by_what_llama_cpp_rounds(name):
    """llama.cpp rounds activations, to 8 bits or BF16: twice its own distance from its run on the dequantized file is the bound."""
    ours, theirs = logits(name, "reference")
    assert nmse(ours, theirs) <= 2 * MANIFEST[f"traces/{name}/logits.safetensors"]["nmse_of_dequantized"]


@pytest.mark.parametrize("name", share(ROUNDED, of_name))
def test_quantized_models_differ_by_nothing_where_that_rounding_is_computed(name):
    """No bit, with the C library that llama.cpp was recorded with; another one may flip a code, but not at the median token."""
    ours, theirs = logits(name, "llamacpp:exact")
    assert np.median([nmse(a, b) for a, b in zip(ours, theirs, strict=True)]) <= 1e-7


def test_every_node_of_a_routed_run_agrees():
    model = refmodel.load(GOLDEN / "models" / "qwen35.gguf")
    other = recorded(model, GOLDEN / "traces" / "qwen35" / "route.safetensors")
    assert judge(model, model.route(other.route), other, lambda name: None).first is None
    for numerics in ("reference", "oracle"):
        for anchor in ("", "block", "node"):
            result = compare(model, model.route(other.route), other, numerics_of(numerics), anchor, lambda name: None)
            assert len(result.rows) == len(other.taps) > 1000
            assert max(row.nmse for row in result.rows) <= FLOAT_ORDER  # both are float32, or nearer to the truth


def test_transformers_agrees():
    facts = json.loads((GOLDEN / "hf" / "qwen35-hf.json").read_text())
    model = refmodel.load(GOLDEN / "models" / "qwen35-hf.gguf")
    theirs = np.load(GOLDEN / "hf" / "qwen35-hf.logits.npy")
    assert nmse(model.forward(facts["tokens"], numerics="oracle"), theirs) <= 1e-10
    assert nmse(model.forward(facts["tokens"]), theirs) <= 1e-10
