"""Every name of llama.cpp's table of pre-tokenizers cuts text as llama.cpp does: golden/pre/ has its answers to 3,000 texts."""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from shares import diagonal, share

from refmodel.gguf.reader import read
from refmodel.tokenizer import Tokenizer
from refmodel.tokenizer.pre import PRE

FOLDER = Path(__file__).parent.parent / "golden" / "pre"
sys.path.insert(0, str(FOLDER.parent))
import make_pre  # noqa: E402
from make_tokenizers import llama_vocab  # noqa: E402

NAMES = json.loads((FOLDER / "names.json").read_text())
RUNS = ["\n", " ", "1", "a", "\u4e00", " \r", "'s", "\u0301"]
EVERY = pytest.mark.parametrize("name", sorted(PRE))


def tokenizer(name, folder):
    base = FOLDER / ("characters.gguf" if name in make_pre.CHARACTERS else "letters.gguf")
    return Tokenizer.from_metadata(read(make_pre.renamed(base, name, folder / "named.gguf")).metadata)


@cache
def texts(name):
    return list(make_pre.texts_for(name))


def test_every_name_of_llama_cpp_is_known_and_no_other():
    assert len(NAMES) == 91
    assert sorted(PRE) == sorted(NAMES)


@pytest.mark.parametrize("name", share(sorted(PRE), lambda name: {PRE[name]}))  # every definition; some have several names
def test_ids_are_llama_cpps(name, tmp_path):
    ours = tokenizer(name, tmp_path)
    checks = np.load(FOLDER / "ids.npy")[NAMES[name]["row"]].tolist()
    found = [make_pre.check(ours.encode(text, add_special=False)) for text in texts(name)]
    assert len(checks) == make_pre.COUNT
    assert [i for i, (a, b) in enumerate(zip(found, checks, strict=True)) if a != b] == []


@EVERY
def test_begin_and_end_tokens_are_llama_cpps(name, tmp_path):
    ours = tokenizer(name, tmp_path)
    assert [-1 if i is None else i for i in (ours.bos, ours.eos)] + [ours.add_bos, ours.add_eos] == NAMES[name]["begin_and_end"]


def test_the_model_gemma4_means_its_pre_tokenizer(tmp_path):
    make_pre.write(tmp_path / "made.gguf", "gemma4", "default", letters=False)
    ours, named = Tokenizer.from_metadata(read(tmp_path / "made.gguf").metadata), tokenizer("gemma4", tmp_path)
    assert (ours.pre, ours.bos, ours.eos, ours.add_bos) == ("gemma4", None, None, True)
    for text in texts("gemma4")[:300]:
        ids = ours.encode(text, add_special=False)
        assert ids == named.encode(text, add_special=False)
        assert ours.decode(ids) == text.replace("\u2581", " ")


@pytest.mark.parametrize(("text", "name"), diagonal(RUNS, ["deepseek-llm", "tiny_aya", "afmoe", "jais-2", "kimi-k2", "gemma4"]))
def test_a_long_run_takes_no_time(name, text, tmp_path):
    """A quadratic expression would take minutes here."""
    ours = tokenizer(name, tmp_path)
    assert len(ours.encode(text * 100_000 + "x", add_special=False)) > 100


@pytest.mark.live
@EVERY
def test_live_ids(name, tmp_path, llama_lib):
    ours = tokenizer(name, tmp_path)
    with llama_vocab(llama_lib, tmp_path / "named.gguf") as theirs:
        for text in texts(name):
            assert ours.encode(text, add_special=False) == theirs.encode(text, False, False), text
        assert [i for i in range(ours.n_vocab) if ours.piece(i) != theirs.piece(i)] == []
