"""Batches: what a sequence gives does not depend on its company, its order, the pieces in which it is fed, or forks."""

from dataclasses import replace
from pathlib import Path

import companies
import numpy as np
import pytest
import tiny
from companies import alone, differing, in_session
from near import same_bits
from shares import diagonal

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.errors import MemoryLimitError, RefmodelError, RouteError, TokenError
from refmodel.machine import memory

GOLDEN = Path(__file__).parent.parent / "golden" / "models"
TOKENS = [7, 3, 250, 9, 9, 31, 120, 64, 5, 17, 2]
LIKE_A_SESSION = ["numpy", "reference", "oracle", "llamacpp"]
PACKED = ["qwen35moe-Q4_K_M", "gemma3-Q8_0"]


@pytest.fixture
def model(arch, tmp_path):
    return refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=5, window=3 if arch == "gemma3" else 0))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("models") / "llama.gguf", "llama", seed=5))


@pytest.mark.parametrize(("arch", "numerics"), diagonal(ARCHITECTURES, [*LIKE_A_SESSION, "fast"]))
def test_no_bit_depends_on_company(model, numerics):
    """Any company, any order, any split, forks and drops; and a session has the same bits."""
    for life in companies.live(model.batch(numerics), np.random.default_rng(11), steps=12, most=6):
        assert differing(np.concatenate(life.logits), alone(model, numerics, life)) == 0
        assert differing(np.concatenate(life.logits), in_session(model, numerics, life)) == 0


@pytest.mark.parametrize(("name", "numerics"), diagonal(PACKED, ["fast", "llamacpp"]))
def test_no_bit_of_packed_weights_depends_on_company(name, numerics):
    """`fast` has its own bits in a batch: few tokens are summed as many are. llamacpp has those of a session."""
    packed = refmodel.load(GOLDEN / f"{name}.gguf")
    for life in companies.live(packed.batch(numerics), np.random.default_rng(12), steps=12, most=10):
        assert differing(np.concatenate(life.logits), alone(packed, numerics, life)) == 0
        if numerics == "llamacpp":
            assert differing(np.concatenate(life.logits), in_session(packed, numerics, life)) == 0


def test_fast_has_a_sessions_bits_in_calls_of_many_tokens():
    packed = refmodel.load(GOLDEN / "gemma3-Q8_0.gguf")
    batch, session = packed.batch("fast"), packed.session(numerics="fast")
    handle, other = batch.add(), batch.add("blocks:0,1")
    for tokens in (TOKENS[:5], TOKENS[5:]):
        same_bits(batch.forward({other: [1, 2], handle: tokens})[handle], session.forward(tokens))
    assert differing(batch.forward({handle: [4]})[handle], session.forward([4]))  # one token: other bits, as documented


def test_sequences_share_calls_of_blocks(llama):
    """Two that begin alike, and one that jumps back: what is stacked, and what is counted."""
    batch = llama.batch("reference")
    a, b = batch.add(), batch.add("layers:0,1,0,1,2")
    batch.forward({a: [1, 2, 3], b: [4]})
    assert (batch.work.calls, batch.work.executions, batch.work.visits) == (6, 8, 3 * 3 + 5)


def test_only_a_fork_that_is_fed_copies(llama):
    batch = llama.batch("reference")
    first = batch.add()
    batch.reserve({first: 20})
    batch.forward({first: TOKENS})
    second = batch.fork(first)
    one, two = (batch.members[handle].states[0] for handle in (first, second))
    assert one._k is two._k
    before = one._k
    batch.forward({second: [1]})  # the cells after the common ones are free: the first who comes fills them
    assert two._k is before
    batch.forward({first: [2]})
    assert one._k is not before


def test_likeliest_and_hidden_states_are_those_of_the_logits(llama):
    batch, other = llama.batch("reference"), llama.batch("reference")
    handles = [batch.add(), batch.add("blocks:1,3")]
    assert handles == [other.add(), other.add("blocks:1,3")]
    calls = {handles[1]: TOKENS, handles[0]: TOKENS[:4]}
    best, hidden = batch.likeliest(calls, 3), other.hidden(calls)
    for handle, logits in zip(hidden, other.head(list(hidden.values())), strict=True):
        session = llama.session(other.members[handle].route)
        same_bits(logits, session.forward(calls[handle]))
        again = llama.session(other.members[handle].route)
        for got, want in zip(best[handle], again.likeliest(calls[handle], 3), strict=True):
            same_bits(got, want)


@pytest.mark.parametrize(
    ("calls", "error", "message"),
    [
        ({9: [1]}, RefmodelError, "9 is not a sequence of this batch"),
        ({1: []}, TokenError, "at least one token"),
        ({1: [1, 10**6]}, TokenError, "1000000"),
    ],
)
def test_what_cannot_be_fed_feeds_nothing(llama, calls, error, message):
    batch = llama.batch("reference")
    handle, other = batch.add(), batch.add()
    batch.forward({handle: TOKENS[:3]})
    with pytest.raises(error, match=message):
        batch.forward({other: [1], **calls})
    assert [member.n_past for member in batch.members.values()] == [3, 0]
    same_bits(batch.forward({handle: TOKENS[3:]})[handle], llama.forward(TOKENS)[3:])


def test_words_and_routes_that_fit_nothing_are_refused(llama):
    batch = llama.batch("reference")
    with pytest.raises(RouteError, match="out of range"):
        batch.add([0, 99])
    handle = batch.add()
    with pytest.raises(RefmodelError, match="logits is 'some'"):
        batch.forward({handle: [1]}, logits="some")
    batch.drop(handle)
    for use in (batch.drop, batch.fork):
        with pytest.raises(RefmodelError, match="not a sequence of this batch"):
            use(handle)
    assert batch.forward({}) == {}
    assert batch.add() != handle


def test_a_numerics_whose_bits_depend_on_the_company_is_refused_by_name(llama):
    own = replace(refmodel.FAST, name="mine", linear=lambda w, x: refmodel.FAST.linear(w, x))
    with pytest.raises(RefmodelError, match=r"numerics mine: .* has no batches"):
        llama.batch(own)


def test_memory_that_is_not_there_is_refused_before_anything_is_fed(llama, monkeypatch):
    batch = llama.batch("reference")
    handles = [batch.add(), batch.add()]
    batch.reserve(dict.fromkeys(handles, 12))
    monkeypatch.setattr(memory, "available", lambda: batch.memory(dict.fromkeys(handles, 12)))
    batch.hidden(dict.fromkeys(handles, TOKENS))
    with pytest.raises(MemoryLimitError, match=r"keys and values of 2 sequences, .* feed fewer sequences at once"):
        batch.hidden(dict.fromkeys(handles, TOKENS))
    monkeypatch.setattr(memory, "available", lambda: 10)
    with pytest.raises(MemoryLimitError, match="logits of 1 tokens take"):
        batch.forward({handles[0]: [1]})
    assert [member.n_past for member in batch.members.values()] == [len(TOKENS)] * 2
