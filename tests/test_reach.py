"""What `diff` says a prompt does not reach: a mistake there changes no bit of a shorter prompt, and some bit of that one."""

import numpy as np
import pytest
import tiny
from small_faults import FAULTS, Engine, floats, tensor
from test_diff import Record

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.compare.reach import unreached
from refmodel.numerics import REFERENCE

# words of the phrase -> architectures that have it, and a mistake there
OLDEST_TAP = tensor(r"blk\.0\.(ssm_conv1d|shortconv\.conv)\.weight", floats(lambda w: w * (np.arange(w.shape[-1]) > 0)))
PARTS = {
    "rotation": (set(ARCHITECTURES), FAULTS["rope base halved"]),
    "edge of the window": ({"gemma3"}, FAULTS["window one longer"]),
    "grow beyond": ({"mistral3"}, lambda e: Engine(e.model.with_hparams(temperature=0.0), e.numerics)),
    "whole convolution": ({"qwen35", "qwen35moe", "qwen3next", "lfm2"}, OLDEST_TAP),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("r") / "m.gguf", request.param, seed=3))


def taps_of(engine, tokens):
    session = engine.model.session(numerics=engine.numerics, tapper=(record := Record()), scores=True)
    session.forward(range(1, tokens + 1))
    return record


def phrase(model, part, calls):
    return next((words for words in unreached(model, calls) if part in words), "")


@pytest.mark.parametrize("part", PARTS)
def test_the_shortest_prompt_that_reaches_a_part_is_the_one_that_is_said(part, model):
    has, fault = PARTS[part]
    said = phrase(model, part, [[1]])
    assert bool(said) == (model.architecture in has)
    if not said:
        return
    needed = int(said.split(": ")[1].split()[0])
    assert phrase(model, part, [[1] * (needed - 1)])
    assert not phrase(model, part, [[1] * needed])
    healthy = Engine(model, REFERENCE)
    for tokens, reached in ((needed - 1, False), (needed, True)):
        right, wrong = taps_of(healthy, tokens), taps_of(fault(healthy), tokens)
        gone = [name for name in right if name not in wrong]  # the node that grows queries
        differ = [name for name in wrong if not np.array_equal(right[name], wrong[name])]
        assert bool(differ) == reached, (tokens, gone, differ)


def test_what_is_kept_between_calls_needs_another_call(model):
    assert phrase(model, "between calls", [[1, 2]])
    assert not phrase(model, "between calls", [[1, 2], [3]])


def test_chunks_are_of_programs_that_have_them(model):
    delta = model.architecture in tiny.DELTA
    assert bool(phrase(model, "chunk", [[1] * 64])) == delta
    assert not phrase(model, "chunk", [[1] * 65])
    assert not any("chunk" in words for words in unreached(model, [[1] * 9], chunked=False))
