"""Trained models write the text that llama.cpp writes: greedily, a token at a time, under numerics llamacpp.

Ours comes first. llama.cpp then gets the same prompt in one decode and our tokens in one decode each, as a greedy loop of its own
would feed them while it agrees; its best token after each decode must be the one that we fed next. So the first token that differs
from its own text is found, and with it how near the two candidates were.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from english import TEXT
from near import same_bits

import refmodel
from refmodel.compare.rows import compare_logits
from refmodel.forward.taps import in_call
from refmodel.forward.trace import Trace
from refmodel.llamacpp.oracle import record
from refmodel.llamacpp.profile import PROFILES
from refmodel.text.generate import generate

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
from make_tokenizers import llama_vocab

pytestmark = pytest.mark.live

COUNT = 64
PROMPTS = {
    "smollm2": [
        "<|im_start|>user\nWhat is the capital of France, and which river runs through it?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nAnswer in verse.<|im_end|>\n<|im_start|>user\nWhy is the sea salt?<|im_end|>\n<|im_start|>assistant\n",
        "def fibonacci(n: int) -> int:\n    ",
        "Zwölf Boxkämpfer jagen Viktor 🥊 quer über den großen Sylter Deich.",
        TEXT,  # 282 tokens: the cache passes a page of 256
    ],
    "gemma3": [
        "<start_of_turn>user\nWhat is the capital of France, and which river runs through it?<end_of_turn>\n<start_of_turn>model\n",
        "The three laws of thermodynamics are",
        "def fibonacci(n: int) -> int:\n    ",
        "Zwölf Boxkämpfer jagen Viktor 🥊 quer über den großen Sylter Deich.",
        TEXT,
    ],
}


@pytest.mark.parametrize(("trained", "number"), [(name, i) for name, prompts in PROMPTS.items() for i in range(len(prompts))])
def test_greedy_text_is_llama_cpps(trained, number, request, tmp_path, llama_lib):
    path, prompt = request.getfixturevalue(trained), PROMPTS[trained][number]
    model = refmodel.load(path)
    ids = model.tokenizer.encode(prompt, parse_special=True)
    with llama_vocab(llama_lib, path) as vocab:
        assert ids == vocab.encode(prompt, add_special=True, parse_special=True)
    written = list(generate(model.session(numerics="llamacpp"), ids, COUNT))
    calls = [ids, *([token] for token in written[:-1])]
    theirs = Trace(record(path, calls, PROFILES["default"], tmp_path / "t.safetensors", llama_lib, taps=False, last=True).path)
    session = model.session(numerics="llamacpp")
    for step, call in enumerate(calls):
        a = session.forward(call, "last")
        b = np.array(theirs[in_call("result_output", step)])[None]
        row = compare_logits(a, b)[0]
        assert written[step] == row.top1_ours
        said = f"token {step} is {written[step]}, llama.cpp's {row.top1_theirs}; its margin {row.margin:.3g}, NMSE {row.nmse:.1e}"
        if row.top1_ours != row.top1_theirs and row.near_tie:
            pytest.xfail(f"near tie: {said}")
        assert row.top1_ours == row.top1_theirs, said
        same_bits(a, b)
