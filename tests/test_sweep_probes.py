"""Probes: both families of scorers, the forms of their files, answers that are written together, and what is broken."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import refmodel
from refmodel.errors import SweepError
from refmodel.model.route import Route
from refmodel.numerics import numerics_of
from refmodel.sweep.asking import asker
from refmodel.sweep.engines import Local
from refmodel.sweep.probes import made
from refmodel.sweep.probes.choices import choices_probe, digits_probe
from refmodel.sweep.probes.scorers import cf_eq, cf_math, digits, ng_eq, ng_math, reasoning
from refmodel.sweep.probes.written import FAMILIES, NOT_ASKED, Prompt, Reply, questions_of, records_of, written_probe
from refmodel.sweep.writing import trouble
from refmodel.text.generate import generate

FELT = {"Sad": 3.0, "Angry": 5.0, "Calm": 0.0, "Proud": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("probes") / "tiny.gguf", "llama"))


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        (1234, 1234, 1.0),
        (1234, 123, (1 - 4 / 1234) * 0.75),  # 1230 against 1234, one of four places filled
        (1000, 1, 0.25),  # 1000 against 1000, three places filled
        (0, 0, 0.0),  # the right answer 0 never scores
        (5, -5, 0.0),
        (4302459, 9999999, 1 - (9999999 - 4302459) / 9999999),
    ],
)
def test_partial_digit_credit(expected, answer, score):
    assert digits(expected, answer) == pytest.approx(score, abs=1e-15)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_partial_credit_is_between_none_and_all_and_all_only_for_the_number(expected, answer):
    assert 0 <= digits(expected, answer) <= 1
    assert (digits(expected, answer) == 1) == (expected == answer and answer != 0)


@pytest.mark.parametrize(
    ("text", "ng", "cf"),
    [
        ("1234", 1.0, 1.0),
        ("about 1,234.", digits(1234, 234), 1.0),  # a comma cuts a number for one, and not for the other
        ("7 or 1234", 1.0, 1.0),
        ("1234 or 99999", 1.0, digits(1234, 99999)),  # the best of all against the longest
        ("<think>99999</think>1234", 1.0, digits(1234, 99999)),
        ("<think>1234</think>", 1.0, 1.0),  # only thinking: that is read
        ("-1234", 1.0, digits(1234, -1234)),
        (",,", 0.0, 0.0),
        ("none", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_math_in_both_dialects(text, ng, cf):
    assert ng_math(1234, text).score == ng
    assert cf_math(1234, text).score == cf


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Sad: 3\nAngry: 5\nCalm: 0\nProud: 2", 0.8 * 1 + 0.2 * 0.5),
        ("Revised scores:\nSad: 3\nAngry: 5\nCalm: 0\nProud: 2", 0.9 * 1 + 0.1 * 0.5),
        ("Sad: 3\nAngry: 5\nCalm: 0\nProud: 2\nRevised scores:\nSad: 5\nAngry: 5\nCalm: 0\nProud: 2", 1 - 1 / 40),
        ("Sad: 3\nAngry: 5\nCalm: 0", 0.8 * (1 - 3 / 40) + 0.2 * 0.5),  # the missing one is 5
        ("3, 5, 0, 2", 0.5 * 1 + 0.5 * 0.5),
        ("3 and 5", 0.25 * (1 - (5 + 3) / 40) + 0.75 * 0.5),  # two numbers of four
        ("no idea", 0.5),
        ("", 0.5),
    ],
)
def test_feelings_as_ng_scores_them(text, score):
    assert ng_eq(FELT, text).score == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("3, 5, 0, 2", 100.0),
        ("4, 6, 1, 3", 97.5),  # four times 1 / 4
        ("8, 5, 0, 2", 100 * (1 - 5 / 40)),  # above 4 a difference costs itself
        ("7, 5, 0, 2", 100 * (1 - 4 / 40)),
        ("3.5, 5, 0, 20", 100 * (1 - (0.0625 + 8) / 40)),  # held within 10
        ("3, 5, 0", 0.0),
        ("", 0.0),
    ],
)
def test_feelings_as_circuit_finder_scores_them(text, score):
    assert cf_eq(list(FELT.values()), text).score == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("expected", "text", "score"),
    [
        ("6", "15 and 6 are 21. The answer is 6.", 1),
        ("6", "The answer is 6", 0),  # nothing ends it, so the last line counts, and that is more than the number
        ("6", "so it is\n6", 1),
        ("d", "I think\n(D)", 1),
        ("d", "Date: D", 1),
        ("b", "A or B", 0),
        ("yes", "Thinking.\nYes, it does", 1),
        ("no", "Yes", 0),
        ("no", "nothing like it", 1),
        ("yes", "no eyes", 0),
    ],
)
def test_reasoning(expected, text, score):
    assert reasoning(expected, text).score == score


def test_the_two_forms_of_a_file_are_read(tmp_path):
    path = tmp_path / "q.json"
    for records in ({"0": {"question": "2 + 2 =", "answer": 4}}, [{"question": "2 + 2 =", "answer": "4"}]):
        path.write_text(json.dumps(records))
        (question,) = questions_of("ng-math", records_of(path), "q")
        assert (question.words, question.mark("4").score) == ("2 + 2 =", 1.0)
    scores = {f"emotion{k}": name for k, name in enumerate(FELT, 1)} | {
        f"emotion{k}_score": v for k, v in enumerate(FELT.values(), 1)
    }
    for answer in (FELT, scores):
        path.write_text(json.dumps({"1": {"prompt": "Rate.", "reference_answer": answer, "reference_answer_fullscale": answer}}))
        (question,) = questions_of("ng-eq", records_of(path), "q")
        assert question.mark("3, 5, 0, 2").score == 0.75


@pytest.mark.parametrize("text", ["", "{}", "[1]", "a text", '{"0": {"question": "x"}}', '[{"question": "x", "answer": "y"}]'])
def test_a_file_of_another_form_is_one_line(tmp_path, text):
    path = tmp_path / "q.json"
    path.write_text(text)
    with pytest.raises(SweepError, match=r"q\.json") as caught:
        questions_of("ng-math", records_of(path), str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted({family.make for family in FAMILIES.values()}, key=lambda make: make.__name__))
def test_own_questions_are_the_same_each_time_and_the_halves_have_nothing_in_common(kind):
    seen, held = (kind(16, half) for half in made.HALVES)
    assert seen == kind(16, made.HALVES[0])
    assert len(seen) == len(held) == 16
    assert not {json.dumps(one) for one in seen} & {json.dumps(one) for one in held}


def test_own_answers_are_right():
    for record in made.math(16, "seen"):
        assert ng_math(record["answer"], str(record["answer"])).score == 1
    assert {record["type"] for record in made.reasoning(10, "seen")} == set(made.CATEGORIES)
    for record in made.reasoning(50, "seen"):
        if record["type"] == "gsm":
            has, more, gone = (int(word) for word in record["prompt"].split() if word.isdigit())
            assert int(record["answer"]) == has + more - gone
        if record["type"] == "nav":
            north, east, south, west = (int(word) for word in record["prompt"].split() if word.isdigit())
            assert record["answer"] == ("yes" if (north, east) == (south, west) else "no")


@pytest.mark.parametrize(
    ("text", "loop", "found"),
    [("", False, "mute"), (" \n", True, "mute"), ("a a a", True, "loop"), ("?!. ,,, --", False, "garbage"), ("(D) 12", False, "")],
)
def test_broken_answers(text, loop, found):
    assert trouble(text, loop) == found


def test_a_mute_model_is_not_half_good(tmp_path, model):
    probe = written_probe("ng-eq", "ng-eq", 4, asker(model))
    assert probe.answer(0, Reply("", "mute")).score == 0
    assert probe.answer(0, Reply("I cannot say")).score == 0.5  # as the scorer has it


def test_answers_do_not_depend_on_who_is_asked_with_them(model):
    """Every answer is the greedy one that a session writes; routes and questions are mixed. Only its end may be cut off."""
    routes = [Route.parse(words, 3) for words in ("identity", "blocks:0,2", "layers:0,2")]
    probe = written_probe("cf-math", "cf-math", 3, asker(model))
    probe = replace(probe, prompts=tuple(Prompt(prompt.tokens, 10) for prompt in probe.prompts))
    engine = Local(model, numerics_of("numpy"))
    found, compared = dict(engine.run(probe, 0, 3, routes)), 0
    assert not engine.batch.members
    for number, route in enumerate(routes):
        for question, prompt in enumerate(probe.prompts):
            text = found[number].texts[question]
            if text == NOT_ASKED:
                assert question == 2
                assert found[number].scores[2] == 0
                continue
            text = re.sub(r"^\[(mute|loop|garbage)\]", "", text).strip()[:-4]  # half a character may be its last
            tokens = list(generate(model.session(route, "numpy"), prompt.tokens, prompt.most))
            assert model.tokenizer.decode(tokens).strip().startswith(text)
            compared += len(text)
    assert compared > 10


def test_two_questions_are_answered_once(model):
    """As many as are asked before a route may be given up."""
    probe = written_probe("cf-math", "cf-math", 2, asker(model))
    probe = replace(probe, prompts=tuple(Prompt(prompt.tokens, 3) for prompt in probe.prompts))
    routes = [Route.identity(3), Route.parse("blocks:0,1", 3)]
    found = list(Local(model, numerics_of("numpy")).run(probe, 0, 2, routes))
    assert sorted(number for number, _ in found) == [0, 1]
    assert all(len(outcome.scores) == 2 for _, outcome in found)


def test_choices_are_the_models_likelihoods(model, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"question": "the cat", "choices": ["sat on", "door by the"], "answer": "B"}]))
    probe = choices_probe("choices", path, asker(model), model.tokenizer)
    ((_, outcome),) = Local(model, numerics_of("numpy")).run(probe, 0, 1, [Route.identity(3)])
    sums = []
    for text in (" sat on", " door by the"):
        start = model.tokenizer.encode("the cat", add_special=True)
        ids = start + model.tokenizer.encode(text, add_special=False)
        logits = model.forward(ids, None, "numpy").astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        sums.append(np.prod([p[at - 1, ids[at]] for at in range(len(start), len(ids))]))
    assert outcome.scores[0] == pytest.approx(sums[1] / sum(sums), rel=1e-4)  # the sums of exponentials there are of float32


def test_digits_share_what_the_model_gives_them(model, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"prompt": "one and one are", "answer": 2}, {"prompt": "rate it:"}]))
    probe = digits_probe("digits", path, asker(model), model.tokenizer)
    ((_, outcome),) = Local(model, numerics_of("numpy")).run(probe, 0, 2, [Route.identity(3)])
    ids = [model.tokenizer.encode(str(digit), add_special=False)[-1] for digit in range(10)]
    shares = []
    for words in ("one and one are", "rate it:"):
        last = model.forward(model.tokenizer.encode(words, add_special=True), None, "numpy", "last")[0].astype(np.float64)[ids]
        shares.append(np.exp(last - last.max()) / np.exp(last - last.max()).sum())
    assert outcome.scores == pytest.approx([shares[0][2], shares[1] @ np.arange(10) / 9], rel=1e-12)
    assert "coverage" in outcome.texts[0]
