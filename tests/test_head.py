"""The likeliest tokens have the ids and the bits that the logits of the whole vocabulary give."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from strategies import seeds

import refmodel
from refmodel.model import likeliest as head
from refmodel.numerics import NUMERICS

GOLDEN = Path(__file__).parent.parent / "golden" / "models"


@given(rows=st.integers(1, 400), step=st.sampled_from([8, 16, 64]))
def test_parts_cover_all_rows_in_order_and_leave_over_what_the_whole_does(rows, step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "AT_ONCE", step)
        parts = list(head.parts(rows))
    seen = 0
    for start, stop in parts:
        assert start <= seen < stop
        assert (stop - start) % 8 == rows % 8
        seen = stop
    assert seen == rows


@given(seed=seeds(), rows=st.integers(1, 300), k=st.integers(1, 60), nan=st.booleans())
def test_the_best_are_those_of_a_stable_sort(seed, rows, k, nan):
    r = np.random.default_rng(seed)
    row = r.integers(-9, 9, rows).astype(np.float32)  # many equals
    if nan:
        row[r.random(rows) < 0.3] = np.nan
    k = min(k, rows)
    want = np.argsort(np.where(np.isnan(row), -np.inf, -row), kind="stable")[:k]  # NaN first
    ids, values, seen = np.zeros(0, np.int64), row[:0], 0
    while seen < rows:
        new = row[seen : seen + int(r.integers(1, 50))]
        ids, values = head.kept(ids, values, seen, new, k)
        seen += len(new)
    assert ids.tolist() == want.tolist()
    same_bits(values, row[want])


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("head") / "m.gguf", "qwen2", seed=1, biases=["output"], scales=True)


@pytest.mark.parametrize("numerics", [*NUMERICS, "llamacpp:repack=off"])
@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "llama-Q8_0", "a head with a bias"])
def test_the_likeliest_have_the_bits_of_all_logits(name, numerics, biased, monkeypatch):
    monkeypatch.setattr(head, "AT_ONCE", 64)  # several parts, also of a small vocabulary
    model = refmodel.load(biased if name == "a head with a bias" else GOLDEN / f"{name}.gguf")
    for tokens in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [4]):
        row = model.forward(tokens, numerics=numerics, logits="last")[0]
        for k in (1, 10**6):
            ids, values = model.session(numerics=numerics).likeliest(tokens, k)
            want = np.argsort(-row, kind="stable")[:k]
            assert ids.tolist() == want.tolist()
            same_bits(values, row[want])


def test_state_goes_on_behind_it():
    session, other = (refmodel.load(GOLDEN / "llama-Q8_0.gguf").session(numerics="fast") for _ in range(2))
    session.likeliest([1, 2, 3])
    other.forward([1, 2, 3])
    same_bits(session.forward([4]), other.forward([4]))


def test_none_is_not_a_number_of_tokens():
    with pytest.raises(refmodel.RefmodelError, match="at least 1"):
        refmodel.load(GOLDEN / "llama.gguf").session().likeliest([1], 0)
