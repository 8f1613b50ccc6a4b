"""`refmodel info --audit`: each corruption of a trained file's numbers is found by name, and a harmless change is not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.gguf.tensor import Tensor
from refmodel.info.audit import audit
from refmodel.info.audit_tensors import query_gates
from refmodel.model.model import Model
from refmodel.quants import dequantize

f32 = np.float32


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random hybrid whose norms and decays are as large as a trained model's."""
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("audit") / "small.gguf", "qwen35", trained=True))


@pytest.fixture(scope="module")
def austen(golden):
    """The trained hybrid in BF16."""
    return refmodel.load(golden / "models" / "austen-BF16.gguf")


def changed(model, pattern, change):
    """The model with the floats of each tensor that fits the pattern changed, as F32."""
    tensors = dict(model.file.tensors)
    for name, t in tensors.items():
        if re.fullmatch(pattern, name):
            x = np.ascontiguousarray(change(dequantize(t.type, t.rows).reshape(t.shape).copy()), f32)
            tensors[name] = Tensor(name, Q.F32, t.shape, t.file, x.view(np.uint8).ravel())
    return Model(replace(model.file, tensors=tensors))


def codes(model, source=None):
    return [finding.code for finding in audit(model, source, lambda name: None)]


def with_one(value):
    def change(x):
        x.flat[3] = value
        return x

    return change


def halved(heads):
    """Queries and gates as all queries, then all gates."""
    return lambda x: x.reshape(heads, 2, -1).swapaxes(0, 1).reshape(x.shape)


BY_ITSELF = {
    "1 missing": (r"blk\.\d+\.attn_norm\.weight", lambda x: x - 1, ["norm-near-zero"]),
    "1 twice": (r"blk\.\d+\.(attn|post_attention)_norm\.weight", lambda x: x + 1, ["norm-near-two"] * 2),
    "1 for the gated norm": (r"blk\.\d+\.ssm_norm\.weight", lambda x: x + 1, ["norm-near-two"]),
    "A_log": (r"blk\.\d+\.ssm_a", lambda x: np.log(-x), ["decay-range"]),
    "exp twice": (r"blk\.\d+\.ssm_a", lambda x: -np.exp(-x), ["decay-range"]),
    "NaN": (r"blk\.1\.ffn_up\.weight", with_one(np.nan), ["not-finite"]),
    "infinite": (r"blk\.1\.attn_norm\.weight", with_one(np.inf), ["not-finite"]),
    "zeros": (r"blk\.4\.ffn_up\.weight", np.zeros_like, ["dead"]),
    "constant": (r"blk\.4\.attn_norm\.weight", np.ones_like, ["constant"]),
    "one embedding for many": (
        r"token_embd\.weight",
        lambda x: np.where(np.arange(len(x))[:, None] < 30, x[:1], x),
        ["repeated-embeddings"],
    ),
}


@pytest.mark.parametrize("name", BY_ITSELF)
def test_a_corruption_is_found_in_the_file_alone(small, name):
    pattern, change, expected = BY_ITSELF[name]
    assert codes(changed(small, pattern, change)) == expected


def test_the_order_of_queries_and_gates_shows_in_a_trained_file(austen):
    """Only the sizes of rows say it, so a random file cannot; heads in another order are no finding."""
    pattern = r"blk\.\d+\.attn_q\.weight"
    assert [f.code for f in query_gates(changed(austen, pattern, halved(4)))] == ["query-gate-order"]
    assert not list(query_gates(changed(austen, pattern, lambda x: x.reshape(4, -1)[::-1].reshape(x.shape))))
    assert not list(query_gates(austen))


HARMLESS = {
    "norms a little larger": (r".*norm\.weight", lambda x: x * f32(1.2)),
    "decays halved": (r"blk\.\d+\.ssm_a", lambda x: x / 2),
    "a few embeddings alike": (r"token_embd\.weight", lambda x: np.where(np.arange(len(x))[:, None] < 5, x[:1], x)),
    "no change": (r".*", lambda x: x),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_not_found(small, name):
    assert codes(changed(small, *HARMLESS[name])) == []


def of_heads(order):
    """The rows of heads in another order."""
    return lambda x: x.reshape(len(order), -1)[order].reshape(x.shape)


TILED = [0, 3, 6, 1, 4, 7, 2, 5, 8]
NEXT_TO_THE_SOURCE = {
    "1 twice": (r"blk\.2\.attn_norm\.weight", lambda x: x + 1, "offset", "plus 1"),
    "1 missing": (r"blk\.2\.attn_norm\.weight", lambda x: x - 1, "offset", "plus -1"),
    "grouped": (r"blk\.1\.attn_gate\.weight", of_heads(np.argsort(TILED)), "unlike-source", "value heads"),
    "halves": (r"blk\.2\.attn_q\.weight", halved(6), "unlike-source", "halves"),
    "heads exchanged": (r"blk\.1\.attn_gate\.weight", of_heads([1, 0, 2, 3, 4, 5, 6, 7, 8]), "unlike-source", "permuted"),
    "log of the decay": (r"blk\.1\.ssm_a", lambda x: np.log(-x), "unlike-source", "A_log"),
    "taps reversed": (r"blk\.1\.ssm_conv1d\.weight", lambda x: x[:, ::-1], "unlike-source", "reverse"),
    "scale twice": (r"blk\.2\.ffn_up\.weight", lambda x: 2 * x, "scaled", "2 times"),
    "unlike": (
        r"blk\.2\.ffn_up\.weight",
        lambda x: np.random.default_rng(1).standard_normal(x.shape),
        "unlike-source",
        "correlates",
    ),
}


@pytest.mark.parametrize("name", NEXT_TO_THE_SOURCE)
def test_a_corruption_is_named_next_to_the_source(small, name):
    pattern, change, code, words = NEXT_TO_THE_SOURCE[name]
    found = [f for f in audit(changed(small, pattern, change), small, lambda name: None) if f.code == code]
    assert len(found) == 1
    assert words in found[0].measured
    assert re.fullmatch(pattern, found[0].tensors[0])


def test_exchanged_tensors_are_named(small):
    tensors = dict(small.file.tensors)
    a, b = (tensors[f"blk.1.ssm_{name}.weight"] for name in ("alpha", "beta"))
    tensors |= {a.name: replace(b, name=a.name), b.name: replace(a, name=b.name)}
    found = audit(Model(replace(small.file, tensors=tensors)), small, lambda name: None)
    assert [f.faults for f in found] == [("F23",), ("F23",)]
    assert "ssm_beta" in found[0].measured + found[1].measured


def test_a_sound_quantization_next_to_its_source(golden):
    fine, coarse = (refmodel.load(golden / "models" / f"qwen35-{kind}.gguf") for kind in ("Q8_0", "Q4_K_M"))
    assert codes(coarse, fine) == ["coarse-gates"]


def test_gates_of_few_bits_and_copied_blocks(golden, tmp_path):
    model = refmodel.load(golden / "models" / "austen-Q4_K_M.gguf")
    assert codes(model) == ["coarse-gates"]
    refmodel_copy = tmp_path / "copy.gguf"
    done = CliRunner().invoke(app, ["surgery", str(model.path), "--route", "blocks:5,7", "-o", str(refmodel_copy)])
    assert done.exit_code == 0
    assert codes(refmodel.load(refmodel_copy)) == ["coarse-gates", "copied-blocks"]


def test_random_models_of_every_architecture_are_sound(tmp_path):
    for arch in tiny.SHAPES:
        assert codes(refmodel.load(tiny.build(tmp_path / f"{arch}.gguf", arch))) == []


def test_the_command_prints_findings(golden):
    model = str(golden / "models" / "austen-Q4_K_M.gguf")
    done = CliRunner().invoke(app, ["info", model, "--audit", "--json"])
    found = json.loads(done.stdout)["audit"]
    assert done.exit_code == 0
    assert [f["faults"] for f in found] == [["F69"]]
    assert all(found[0][key] for key in ("measured", "normal", "means", "tensors"))
    done = CliRunner().invoke(app, ["info", model, "--source", model])
    assert "--audit" in str(done.exception)
    other = str(golden / "models" / "llama.gguf")
    assert "not the same model" in str(CliRunner().invoke(app, ["info", model, "--audit", "--source", other]).exception)
