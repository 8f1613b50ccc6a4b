"""Greedy and seeded generation under routes and numerics, stop strings over token borders, and the warning of a loop."""

from dataclasses import replace

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from shares import diagonal, only

import refmodel
from refmodel.text.generate import generate
from refmodel.text.reply import Reply, StopStrings, repeated
from refmodel.text.sampling import GREEDY, Sampling

WARM = Sampling(temperature=1.5, repeat_penalty=1.1, seed=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("generate") / "m.gguf", "qwen35", seed=8))


@pytest.mark.parametrize(("numerics", "route"), diagonal(["reference", "oracle", "fast", "llamacpp"], [None, "blocks:1,3"]))
def test_greedy_is_the_likeliest_token_of_each_step(model, route, numerics):
    written = list(generate(model.session(route, numerics), [1, 2, 3], 4))
    session, tokens = model.session(route, numerics), [1, 2, 3]
    assert len(written) == 4
    for token in written:
        assert token == session.forward(tokens)[-1].argmax()
        tokens = [token]


@pytest.mark.parametrize("numerics", only(["reference", "llamacpp"], "llamacpp"))
def test_a_seed_gives_the_same_tokens_and_another_seed_others(model, numerics):
    of = lambda how: list(generate(model.session("blocks:1,3", numerics), [1, 2, 3], 12, how))
    assert of(WARM) == of(WARM)
    assert len({tuple(of(replace(WARM, seed=seed))) for seed in range(4)}) == 4


def test_steering_writes_tokens_whatever_the_model_thinks_and_feeds_them(model):
    free = list(generate(model.session(), [1, 2, 3], 6))
    steered = list(generate(model.session(), [1, 2, 3], 6, GREEDY, lambda token: [7, 9] if token == free[1] else []))
    assert steered[:4] == [*free[:2], 7, 9]
    assert steered[4] == model.forward([1, 2, 3, *steered[:4]])[-1].argmax()


pieces = st.lists(st.text("abc", max_size=3), max_size=12)


@given(parts=pieces, stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(parts, stops):
    whole, watch = "".join(parts), StopStrings(stops)
    shown = "".join(watch.feed(part) for part in parts) + watch.rest()
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    assert shown == (whole[: min(ends)[1]] if ends else whole)
    assert bool(watch.found) == bool(ends)


@given(parts=pieces, stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_no_more_text_is_held_back_than_a_stop_string_needs(parts, stops):
    watch, seen = StopStrings(stops), ""
    for part in parts:
        shown, seen = watch.feed(part), seen + part
        assert not watch.held or watch.found or any(stop.startswith(watch.held) for stop in stops)
        assert shown in seen


def test_a_reply_ends_at_a_stop_string_over_token_borders(model):
    tokenizer = model.tokenizer
    ids = tokenizer.encode("one two\nUser: three", add_special=False)
    assert len(ids) > 12
    reply = Reply(tokenizer, ["\nUser:", "never"])
    shown = list(reply.read(iter(ids)))
    assert "".join(shown) == reply.text == "one two"
    assert reply.end == "stop"
    assert len(reply.tokens) < len(ids)


def test_a_reply_ends_at_an_end_token_and_shows_what_was_held_back(model):
    tokenizer = model.tokenizer
    end = next(iter(tokenizer.eog))
    reply = Reply(tokenizer, ["\nUser:"])
    assert "".join(reply.read([*tokenizer.encode("a\nUs", add_special=False), end, 5])) == "a\nUs"
    assert (reply.end, reply.tokens[-1]) == ("eog", end)
    assert "".join(Reply(tokenizer).read(tokenizer.encode("é", add_special=False)[:1])) == "\ufffd"


@given(
    head=st.lists(st.integers(0, 9), max_size=20), phrase=st.lists(st.integers(0, 9), min_size=1, max_size=20), n=st.integers(4, 9)
)
def test_a_phrase_that_is_written_again_and_again_is_a_loop(head, phrase, n):
    found = repeated([*head, *phrase * n])
    if n * len(phrase) >= 48:
        assert 0 < found <= len(phrase)
    if found:
        tokens = [*head, *phrase * n]
        assert tokens[-found:] * 4 == tokens[-4 * found :]


def test_a_list_with_different_items_is_no_loop():
    assert repeated([token for number in range(200) for token in (1, 2, number, 3)]) == 0
    assert repeated([7] * 47) == 0
    assert repeated([7] * 48) == 1


@pytest.mark.parametrize("length", [1, 2, 11, 12, 13, 16, 20, 63, 64])
def test_a_loop_is_four_times_a_phrase_of_at_most_64_and_48_tokens(length):
    """One token less, or another one where the first repetition starts, is no loop."""
    phrase, span = list(range(length)), max(48, 4 * length)
    loop = (phrase * 48)[-span:]
    assert repeated(loop) == repeated([99, 98, *loop]) == length
    assert repeated(loop[1:]) == 0
    assert repeated([99, *loop[1:]]) == 0
    assert repeated([*loop, 99]) == 0


def test_a_longer_phrase_is_no_loop():
    assert repeated([*range(65)] * 8) == 0
