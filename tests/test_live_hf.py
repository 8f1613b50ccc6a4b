"""Folders beside transformers: what surgery writes loads, and computes what the source computes with its layers in that order.

    REFMODEL_HF_PYTHON=PYTHON pytest -m live tests/test_live_hf.py

PYTHON is one with torch and transformers (5.23.0 and torch 2.13.0 were used), which need not be the one that runs the tests.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from refmodel.errors import OracleError
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.surgery.hf_run import run_folders
from refmodel.surgery.hf_write import routed_folder, write_safetensors
from refmodel.surgery.verify import Options, verify
from refmodel.surgery.verify.report import BYTES, FORWARD, METADATA, SEAMS, STRUCTURE

pytestmark = pytest.mark.live

ROUTES = {  # each has a block that runs twice in a row, a skip and a step back
    "qwen3": "layers:0,1,1,3,2,3",
    "qwen3moe": "layers:0,1,2,1,1,3",  # block 1 is dense by mlp_only_layers
    "gemma3": "layers:0,5,5,6,1,2,5",  # block 5 has no window
    "qwen35": "layers:0,1,2,1,1,4,3",
    "qwen35-vision": "layers:1,2,2,0,4",
}
TRANSFORMERS = Options(transformers=True)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, hf_python):
    folder = tmp_path_factory.mktemp("hf")
    made = Path(__file__).with_name("hf_checkpoints.py")
    subprocess.run([hf_python, "-I", str(made), str(folder)], check=True, capture_output=True, timeout=600)
    return folder


def routed(source, words, out):
    held = read_folder(source)
    return routed_folder(held, Route.parse(words, held.n_layer), out)


@pytest.mark.parametrize("name", ROUTES)
def test_transformers_runs_the_copy_as_the_source_under_the_route_to_the_bit(name, checkpoints, tmp_path):
    source = checkpoints / name
    copy = routed(source, ROUTES[name], tmp_path / "copy")
    report = verify(copy, source, options=TRANSFORMERS)
    assert report.status == 0, report.findings
    assert {check.name: check.word for check in report.checks} == dict.fromkeys([STRUCTURE, SEAMS, BYTES, METADATA, FORWARD], "ok")
    positions, calls = len(Route.parse(ROUTES[name], read_folder(source).n_layer).layers), 3
    assert report.checks[-1].compared == calls * (positions + 1)


def test_a_kind_that_did_not_follow_its_layer_is_seen_in_what_transformers_computes(checkpoints, tmp_path):
    """Gemma's layers have the same tensors with a window and without: only the list tells them apart."""
    copy = routed(checkpoints / "gemma3", ROUTES["gemma3"], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["layer_types"][1] = "sliding_attention"
    (copy / "config.json").write_text(json.dumps(config))
    report = verify(copy, checkpoints / "gemma3", ROUTES["gemma3"], TRANSFORMERS)
    assert report.status == 1
    assert next(f.where for check, f in report.findings if check == FORWARD) == "l_out-1"
    assert (METADATA, "config.json: layer_types[1]") in [(check, f.where) for check, f in report.findings]


def test_a_copy_that_transformers_cannot_load_is_a_finding_and_such_a_source_an_error(checkpoints, tmp_path):
    source = checkpoints / "qwen3"
    copy = routed(source, ROUTES["qwen3"], tmp_path / "copy")
    kept = [t for t in read_folder(copy).tensors.values() if t.name != "model.layers.2.self_attn.q_norm.weight"]
    with (tmp_path / "whole").open("wb") as file:
        write_safetensors(file, kept, lambda count: None)
    for path in copy.glob("model*"):
        path.unlink()
    (tmp_path / "whole").rename(copy / "model.safetensors")
    report = verify(copy, source, ROUTES["qwen3"], TRANSFORMERS)
    assert [f.where for check, f in report.findings if check == FORWARD] == ["loading"]
    assert "model.layers.2.self_attn.q_norm.weight" in next(f.what for check, f in report.findings if check == FORWARD)
    odd = shutil.copytree(source, tmp_path / "odd")
    (odd / "config.json").write_text(json.dumps({"model_type": "nothing_known"}))
    with pytest.raises(OracleError, match=r"odd: transformers does not run it: .*nothing_known"):
        run_folders(odd, copy, [0], [[1]])
