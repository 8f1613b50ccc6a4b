"""The order and the meaning of the samplers, one law each, and live the same candidates as llama.cpp's chain."""

import ctypes
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near
from strategies import seeds

from refmodel.errors import RefmodelError
from refmodel.text.likelihoods import log_softmax, score_of
from refmodel.text.sampling import GREEDY, Candidates, Sampling, choose, drawn, min_p, penalized, probabilities, top_k, top_p

FREE = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
ps = st.floats(0.01, 1.0)


def chosen(row, before, how, u):
    return choose(np.arange(len(row)), row, before, how, u)


def row_of(seed, size=50):
    """Logits with ties: every value occurs about twice."""
    return np.random.default_rng(seed).integers(-20, 20, size).astype(np.float32) / 4


@given(seed=seeds(), k=st.integers(0, 60))
def test_top_k_is_the_head_of_a_stable_sort(seed, k):
    row = row_of(seed)
    want = sorted(range(len(row)), key=lambda i: (-row[i], i))[: k or None]
    assert top_k(row, k).ids.tolist() == want
    assert top_k(row, k).logits.tolist() == row[want].tolist()


@given(seed=seeds(), p=ps)
def test_top_p_is_the_shortest_head_that_has_the_probability(seed, p):
    all_of_them = top_k(row_of(seed), 0)
    kept, mass = top_p(all_of_them, p), np.cumsum(probabilities(all_of_them.logits))
    n = len(kept.ids)
    assert kept.ids.tolist() == all_of_them.ids[:n].tolist()
    assert n == len(all_of_them.ids) or mass[n - 1] >= p
    assert n == 1 or mass[n - 2] < p


@given(seed=seeds(), p=ps)
def test_min_p_keeps_what_is_probable_enough_beside_the_likeliest(seed, p):
    all_of_them = top_k(row_of(seed), 0)
    probable = probabilities(all_of_them.logits)
    kept = set(min_p(all_of_them, p).ids.tolist())
    for token, probability in zip(all_of_them.ids.tolist(), probable / probable[0], strict=True):
        assert (token in kept) == (probability >= p) or abs(probability - p) < 1e-12  # log and exp round


@given(seed=seeds(), penalty=st.floats(1.01, 3), recent=st.lists(st.integers(0, 49), max_size=20))
def test_a_penalty_makes_recent_tokens_less_likely_and_leaves_the_others(seed, penalty, recent):
    row = row_of(seed)
    before = row.copy()
    new = penalized(np.arange(len(row)), row, recent, penalty)
    assert (row == before).all()
    for i, (a, b) in enumerate(zip(row, new, strict=True)):
        assert b < a if i in recent and a != 0 else a == b


@given(seed=seeds(), u=st.floats(0, 1, exclude_max=True))
def test_each_token_has_its_part_of_the_line(seed, u):
    c = top_k(row_of(seed), 0)
    ends = np.cumsum(probabilities(c.logits))
    at = c.ids.tolist().index(drawn(c, u))
    assert u < ends[at] or at == len(ends) - 1
    assert at == 0 or u >= ends[at - 1]


def test_tokens_are_drawn_with_their_probabilities():
    row = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    numbers = (np.arange(1000) + 0.5) / 1000
    counts = Counter(chosen(row, [], FREE, u) for u in numbers)
    assert counts == {0: 100, 1: 200, 2: 300, 3: 400}
    colder = Counter(chosen(row, [], replace(FREE, temperature=0.5), u) for u in numbers)
    assert [round(colder[i] / 1000, 1) for i in range(4)] == [0.0, 0.1, 0.3, 0.5]  # squares of the above, over 0.3


@given(seed=seeds(), u=st.floats(0, 1, exclude_max=True))
def test_the_settings_that_leave_one_token_are_greedy(seed, u):
    row = np.random.default_rng(seed).standard_normal(50).astype(np.float32)
    best = chosen(row, [], GREEDY, u)
    assert best == row.argmax()
    for one in (replace(FREE, top_k=1), replace(FREE, top_p=1e-9), replace(FREE, min_p=1.0), replace(FREE, temperature=1e-6)):
        assert chosen(row, [], one, u) == best


def test_the_penalty_comes_first_and_looks_back_so_far():
    row = np.array([2.0, 1.5, -1.0], np.float32)
    how = replace(GREEDY, repeat_penalty=2.0, repeat_last=2)
    assert chosen(row, [0, 2, 2], how, 0.0) == 0
    assert chosen(row, [2, 0, 2], how, 0.0) == 1
    assert chosen(row, [0], replace(how, repeat_last=0), 0.0) == 0


def test_the_temperature_comes_last():
    """Top-p sees 0.4 + 0.3 < 0.75 at temperature 1; at 0.5 the two had 0.83 and the third were gone."""
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    drawn_ones = {chosen(row, [], replace(FREE, top_p=0.75, temperature=0.5), u) for u in np.linspace(0, 0.999, 200)}
    assert drawn_ones == {0, 1, 2}


def test_a_logit_that_is_no_number_is_an_error():
    with pytest.raises(RefmodelError, match="not a finite number"):
        chosen(np.array([0.0, np.nan], np.float32), [], GREEDY, 0.0)
    with pytest.raises(RefmodelError, match="not a finite number"):
        chosen(np.array([0.0, np.inf], np.float32), [], GREEDY, 0.0)
    assert chosen(np.array([0.0, -np.inf], np.float32), [], GREEDY, 0.0) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", np.nan),
        ("temperature", np.inf),
        ("temperature", -1.0),
        ("top_p", np.nan),
        ("min_p", 1.5),
        ("repeat_penalty", 1e300),
    ],
)
def test_settings_have_a_range(name, value):
    with pytest.raises(RefmodelError, match=rf"{name.replace('_', ' ')} is .*; expected"):
        Sampling(**{name: value})


class TokenData(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float))


class TokenDataArray(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.POINTER(TokenData)),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


def llama_chain(lib, how):
    """llama.cpp's samplers in the order of common_sampler_init, up to the temperature; the softmax of `dist` is left to us."""
    declare = {
        "llama_sampler_init_penalties": [ctypes.c_int32] * 2 + [ctypes.c_float] * 3,
        "llama_sampler_init_top_k": [ctypes.c_int32],
        "llama_sampler_init_top_p": [ctypes.c_float, ctypes.c_size_t],
        "llama_sampler_init_min_p": [ctypes.c_float, ctypes.c_size_t],
        "llama_sampler_init_temp": [ctypes.c_float],
    }
    for name, arguments in declare.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, ctypes.c_void_p
    lib.llama_sampler_apply.argtypes = [ctypes.c_void_p, ctypes.POINTER(TokenDataArray)]
    lib.llama_sampler_accept.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    lib.llama_sampler_free.argtypes = [ctypes.c_void_p]
    return [
        lib.llama_sampler_init_penalties(50, how.repeat_last, how.repeat_penalty, 0.0, 0.0),
        lib.llama_sampler_init_top_k(how.top_k),
        lib.llama_sampler_init_top_p(how.top_p, 0),
        lib.llama_sampler_init_min_p(how.min_p, 0),
        lib.llama_sampler_init_temp(how.temperature),
    ]


@pytest.mark.live
@given(data=st.data())
def test_live_the_candidates_are_those_of_llama_cpps_chain(llama_lib, data):
    lib = ctypes.CDLL(str(llama_lib))
    how = Sampling(
        temperature=data.draw(st.floats(0.1, 2)),
        top_k=data.draw(st.integers(0, 60)),
        top_p=data.draw(ps),
        min_p=data.draw(st.floats(0, 0.5)),
        repeat_penalty=data.draw(st.sampled_from([1.0, 1.1, 1.5])),
        repeat_last=data.draw(st.integers(1, 10)),
    )
    before = data.draw(st.lists(st.integers(0, 49), max_size=20))
    row = np.random.default_rng(data.draw(seeds())).normal(0, 3, 50).astype(np.float32)
    tokens = (TokenData * 50)(*(TokenData(i, float(x), 0.0) for i, x in enumerate(row)))
    theirs = TokenDataArray(tokens, 50, -1, False)
    for sampler in llama_chain(lib, how):
        for token in before:
            lib.llama_sampler_accept(sampler, token)
        lib.llama_sampler_apply(sampler, ctypes.byref(theirs))
        lib.llama_sampler_free(sampler)
    kept = sorted(((t.logit, -t.id) for t in theirs.data[: theirs.size]), reverse=True)
    calmed = penalized(np.arange(50), row, before[-how.repeat_last :], how.repeat_penalty)
    ours = min_p(top_p(top_k(calmed, how.top_k), how.top_p), how.min_p)
    assert ours.ids.tolist() == [-i for _, i in kept]
    scaled = Candidates(ours.ids, ours.logits / how.temperature)
    assert np.allclose(scaled.logits, [logit for logit, _ in kept], rtol=2e-6, atol=0)  # float32: the penalty and the division


@given(
    seed=seeds(),
    before=st.lists(st.integers(0, 49), max_size=12),
    u=st.floats(0, 0.999),
    temperature=st.sampled_from([0.0, 0.7, 2.0]),
    top_k_=st.sampled_from([0, 1, 5, 40]),
    penalty=st.sampled_from([0.8, 1.0, 1.3]),
)
def test_the_likeliest_tokens_that_decide_are_enough(seed, before, u, temperature, top_k_, penalty):
    how = Sampling(temperature, top_k_, repeat_penalty=penalty, repeat_last=6)
    row = row_of(seed)
    some = top_k(row, how.deciding(len(row))).ids
    assert choose(some, row[some], before, how, u) == chosen(row, before, how, u)


@given(
    logits=st.lists(st.integers(-5, 5), min_size=4, max_size=12),
    recent=st.lists(st.integers(0, 11), max_size=20),
    frequency=st.sampled_from([0.0, 0.5, -1.0]),
    presence=st.sampled_from([0.0, 0.25, -2.0]),
    biases=st.lists(st.tuples(st.integers(0, 11), st.sampled_from([-100.0, 1.5])), max_size=3),
)
def test_biases_and_counted_penalties_choose_from_the_deciding_tokens_as_from_all(logits, recent, frequency, presence, biases):
    row, ids = np.array(logits, np.float32), np.arange(len(logits))
    how = Sampling(frequency_penalty=frequency, presence_penalty=presence, biases=tuple(biases))
    want = row.astype(np.float64)
    for token, bias in biases:
        want[ids == token] += bias
    for token in ids:
        want[token] -= frequency * recent.count(token) + presence * (token in recent)
    some = np.argsort(-row, kind="stable")[: how.deciding(len(row))]
    assert choose(ids, row, recent, how, 0.5) == want.argmax()
    assert choose(some, row[some], recent, how, 0.5) == want.argmax()


@given(logits=st.lists(st.integers(-3, 3), min_size=3, max_size=9), top=st.integers(0, 10))
def test_a_score_has_the_likeliest_tokens_in_order(logits, top):
    row = np.array(logits, np.float32)
    score = score_of(row, 1, top)
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    assert [likely.token for likely in score.top] == order[:top]
    assert score.logprob == log_softmax(row)[1]
    near(np.exp(log_softmax(row)).sum(), 1.0, ulps=8)
