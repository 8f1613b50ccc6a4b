"""transformers as a foreign runtime, with faults that really happened, judged from all that its modules return, from hidden states,
and from logits only. The dumps are made by refmodel.torch.record.

    REFMODEL_HF_PYTHON=PYTHON pytest -m live tests/test_live_torch.py
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import refmodel
from refmodel.compare.dumped import of_dump
from refmodel.compare.rounding import judged
from refmodel.compare.where import first
from refmodel.dumps.read import read

pytestmark = pytest.mark.live
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden" / "train"))

# fault -> the block that it is in, and the first taps that may be wrong of a full dump
FAULTS = {
    "interleaved": (3, {"attn_output-3"}),
    "wrong_base": (3, {"attn_output-3"}),
    "no_query_norm": (3, {"Qcur_normed-3"}),
    "no_gate": (3, {"Qcur_full-3"}),
    "no_one": (2, {"attn_post_norm-2"}),
    "one_too_many": (1, {"final_output-1", "mul-1", "linear_attn_out-1"}),
    "swapped": (0, {"alpha-0", "beta-0"}),
    "other_sign": (4, {"final_output-4", "linear_attn_out-4"}),
    "no_bias": (1, {"final_output-1", "linear_attn_out-1"}),
    "reversed_taps": (0, {"conv_output_raw-0", "final_output-0", "linear_attn_out-0"}),
    "other_heads": (2, {"z-2"}),
    "no_feed_forward": (5, {"ffn_out-5"}),
    "rotated_twice": (3, {"attn_output-3"}),
}
SMALL = {"swapped", "reversed_taps"}  # in block 0: in the logits alone they are smaller than rounding to 8 bits
PARTS = {
    "full": lambda name: True,
    "hidden states": lambda name: (name.startswith("model.layers.") and name.count(".") == 2) or name == "lm_head",
    "logits": lambda name: name == "lm_head",
}


@pytest.fixture(scope="module")
def austen(golden):
    return refmodel.load(golden / "models" / "austen-BF16.gguf")


@pytest.fixture(scope="module")
def dumps(austen, hf_python, tmp_path_factory):
    """A folder with the dump of each fault, and of none."""
    from convert import renamed, restored
    from shape import CONFIG

    folder = tmp_path_factory.mktemp("torch")
    ids = austen.tokenizer.encode("Emma was very glad to see him in the evening.", add_special=False, parse_special=False)
    names = subprocess.run(
        [hf_python, "-c", "import sys,json;from transformers import *;c=Qwen3_5TextConfig(**json.loads(sys.argv[1]));"
         "print(json.dumps(list(Qwen3_5ForCausalLM(c).state_dict())))", json.dumps(CONFIG)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    state = {}
    for name in json.loads(names.splitlines()[-1]):
        packed = austen.output if name == "lm_head.weight" else austen.weights[renamed(name)]
        state[name] = np.ascontiguousarray(restored(name, packed.dense(np.dtype(np.float32)), CONFIG))
    save_file(state, folder / "state.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "out").mkdir()
    words = [folder / "state.safetensors", folder / "config.json", folder / "out", ",".join(map(str, ids)), "none", *FAULTS]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([hf_python, HERE / "foreign_torch.py", *words], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def found(model, dump, part):
    dump = replace(dump, arrays={name: x for name, x in dump.arrays.items() if PARTS[part](name)})
    other = of_dump(model, dump, None, model.route())
    return judged(model, model.route(), other, lambda name: None), other


@pytest.mark.parametrize("part", PARTS)
def test_a_healthy_run_is_healthy(part, austen, dumps):
    verdict, other = found(austen, read(dumps / "none.safetensors"), part)
    assert verdict.word != "wrong", verdict.first
    assert verdict.rounds.startswith("float32")
    assert {remark.code for remark in other.remarks} <= {"no-such-tap", "unknown-names"}
    assert len(other.taps) >= {"full": 100, "hidden states": 13, "logits": 1}[part]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault, austen, dumps):
    dump, (block, taps) = read(dumps / f"{fault}.safetensors"), FAULTS[fault]
    verdict, other = found(austen, dump, "full")
    assert verdict.word == "wrong"
    assert first(verdict, austen, other)["tap"] in taps
    verdict, other = found(austen, dump, "hidden states")
    assert verdict.word == "wrong"
    assert first(verdict, austen, other)["block"] == block
    assert found(austen, dump, "logits")[0].word == ("explained" if fault in SMALL else "wrong")
