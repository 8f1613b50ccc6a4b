"""Folders against transformers, which runs them, and llama.cpp's converter, which makes GGUF files of them.

    REFMODEL_HF_PYTHON=PYTHON REFMODEL_LLAMA_SOURCE=CHECKOUT pytest -m live tests/test_live_folders.py

PYTHON is one with torch and transformers (5.23.0 and torch 2.13.0 were used) and what the converter of the checkout needs. Twice as
many configurations, and more, are compared by tests/many_folders.py.
"""

import json
import subprocess
from pathlib import Path

import many_folders
import pytest

from refmodel.hf.checkpoint import opened
from refmodel.hf.classes import CLASSES
from refmodel.surgery.verify import Options, verify

pytestmark = pytest.mark.live
RUNS = Path(__file__).with_name("hf_runs.py")
KINDS = ("llama", "mistral", "qwen2", "qwen3", "qwen3moe", "gemma3", "gemma3-vision", "qwen3next", "qwen35", "qwen35-vision")
KINDS += ("qwen35moe",)
SEEDS = (0, 1)  # float32 and bfloat16
# Measured over 5 seeds of each class: at most 8e-12, in the hybrids 5e-11, which float32 in transformers leaves.
NMSE = 2e-10
# Classes that the converter makes a known architecture of, and that are not read.
NOT_READ = {
    "AudioFlamingo3ForConditionalGeneration": "a text model within an audio model, under names of its own",
    "DotsOCRForCausalLM": "needs code of its own in transformers",
    **dict.fromkeys(("Eagle3DraftModel", "Eagle3LlamaForCausalLM", "Eagle3Speculator", "LlamaForCausalLMEagle3"), "a draft"),
    "IQuestCoderForCausalLM": "needs code of its own in transformers",
    "InternLM3ForCausalLM": "needs code of its own in transformers",
    "JanusForConditionalGeneration": "a text model within a vision model, under names of its own",
    "KORMoForCausalLM": "needs code of its own in transformers",
    "LlamaModel": "has no head", "Qwen2Model": "has no head", "Qwen3Model": "has no head",
    "LlavaForConditionalGeneration": "a text model within a vision model, under names of its own",
    "MiniCPMV4_6ForConditionalGeneration": "a text model within a vision model, under names of its own",
    "MixtralForCausalLM": "experts under names of their own",
    "Qwen2AudioForConditionalGeneration": "a text model within an audio model, under names of its own",
    "Sarashina2VisionForCausalLM": "needs code of its own in transformers",
    "StepVLForConditionalGeneration": "a text model within a vision model, under names of its own",
    "UltravoxModel": "needs code of its own in transformers",
    "VLlama3ForCausalLM": "needs code of its own in transformers",
    "VoxtralForConditionalGeneration": "a text model within an audio model, under names of its own",
}  # fmt: skip


def run(python, *words):
    done = subprocess.run([python, "-I", str(RUNS), *words], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, hf_python):
    out = tmp_path_factory.mktemp("checkpoints")
    run(hf_python, "make", str(out), str(SEEDS[0]), str(len(SEEDS)), *KINDS)
    return out


@pytest.fixture(scope="module")
def converted(checkpoints, hf_python, llama_source):
    run(hf_python, "convert", llama_source, str(checkpoints))
    return checkpoints


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_computes_what_transformers_computes(kind, seed, checkpoints):
    nmse, greedy = many_folders.against_transformers(checkpoints / f"{kind}-{seed}")
    assert nmse <= NMSE
    assert greedy


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_what_the_converter_makes_of_it(kind, seed, converted):
    """Bit for bit, but for exp and powers, which another library may round to the other neighbour."""
    folder = converted / f"{kind}-{seed}"
    keys, tensors = many_folders.against_converter(folder, Path(f"{folder}.gguf"))
    assert not keys
    assert set(tensors.values()) <= {1}
    assert all(name.endswith(("ssm_a", "rope_freqs.weight")) for name in tensors)
    report = verify(Path(f"{folder}.gguf"), folder, "identity", Options(forward=False))
    remarks = opened(folder).remarks
    assert [finding.what for _, finding in report.findings if finding.where == "config.json"] == sorted(remarks)
    lost = {finding.where for _, finding in report.findings} - {"config.json"}
    assert all(name.startswith("gemma3.attention.sliding_window_pattern") for name in lost)  # the converter drops layer_types


def test_every_class_is_the_architecture_that_the_converter_makes_of_it(hf_python, llama_source):
    theirs = json.loads(run(hf_python, "classes", llama_source).splitlines()[-1])
    assert {name: theirs[name] for name in CLASSES} == {name: cls.arch for name, cls in CLASSES.items()}
    known = {name for name, arch in theirs.items() if arch in {cls.arch for cls in CLASSES.values()}}
    assert known - CLASSES.keys() == NOT_READ.keys()
