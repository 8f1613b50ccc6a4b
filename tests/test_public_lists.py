"""Small files with the metadata of real ones: each opens, runs, and computes llama.cpp's bits under its arithmetic."""

import numpy as np
import pytest
from near import nmse
from public_lists import LISTS, small
from shares import share

import refmodel
from refmodel.compare.other_side import compare
from refmodel.info.checks import inconsistencies
from refmodel.llamacpp.profile import DEFAULT
from refmodel.numerics import LLAMACPP
from refmodel.surgery.live import live

each = pytest.mark.parametrize("name", LISTS)
TOKENS = [84, 104, 101, 220, 9, 77, 31, 200, 5, 12, 17]


def test_there_are_lists_of_every_architecture():
    assert len(LISTS) >= 24
    assert {arch for arch, *_ in LISTS.values()} == set(refmodel.arch.ARCHITECTURES)


@pytest.mark.parametrize("name", share(LISTS, lambda name: {LISTS[name][0], "Ollama" in name}))
def test_it_opens_and_runs(name, tmp_path):
    model = refmodel.load(small(name, tmp_path / "m.gguf"))
    assert inconsistencies(model) == []
    assert bool(model.file.notes) == ("Ollama" in name)
    ours, exact = model.forward(TOKENS), model.forward(TOKENS, numerics="oracle")
    assert np.isfinite(exact).all()
    assert nmse(ours, exact) <= 1e-9
    assert model.tokenizer.decode(model.tokenizer.encode("the an", add_special=False)) == "the an"


@pytest.mark.live
@each
def test_it_agrees_with_llama_cpp_bit_for_bit(name, tmp_path, llama_lib):
    model = refmodel.load(small(name, tmp_path / "m.gguf"))
    mtp = model.hp.n_nextn > 0
    other = live(model, model.route(), [TOKENS, [7], [8]], DEFAULT, llama_lib, False, tmp_path, mtp=mtp)
    rows = compare(model, model.route(), other, LLAMACPP, "", lambda row: None).rows
    assert len(rows) > 50
    assert not [row.name for row in rows if row.differ or row.problem]
