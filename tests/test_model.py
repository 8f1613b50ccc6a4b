"""The forward pass: splits, routes, states, both numerics, and the second float64 forward that shares nothing with it."""

import ast
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import straight
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from near import nmse, same_bits
from shares import diagonal
from strategies import examples

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.errors import RouteError, TokenError

TOKENS = [7, 3, 250, 9, 9, 31, 120, 64, 5, 17, 2]
NUMERICS = pytest.mark.parametrize(("arch", "numerics"), diagonal(ARCHITECTURES, ["fast", "reference", "oracle"]))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Architecture -> a tiny model."""
    folder = tmp_path_factory.mktemp("models")
    return cache(lambda arch: refmodel.load(tiny.build(folder / f"{arch}.gguf", arch, seed=5)))


@pytest.fixture(params=ARCHITECTURES)
def model(request, models):
    return models(request.param)


def routes(n_layer: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, n_layer - 1), min_size=1, max_size=2 * n_layer)


@settings(max_examples=examples(4))
@given(data=st.data())
def test_oracle_is_the_straight_line_float64_forward(model, data):
    route = data.draw(routes(model.n_layer))
    logits, l_out = straight.forward(model.path, TOKENS, route)
    seen = Seen()
    ours = model.forward(TOKENS, route, "oracle", tapper=seen, scores=True)
    assert nmse(ours, logits) <= 1e-24
    for position in range(len(route)):
        assert nmse(seen.taps[f"l_out-{position}"], l_out[position]) <= 1e-24
    session, prompt = model.session(route, "oracle"), data.draw(st.integers(1, len(TOKENS) - 1))
    steps = [session.forward(TOKENS[:prompt]), *(session.forward([token]) for token in TOKENS[prompt:])]
    assert nmse(np.concatenate(steps), logits) <= 1e-24


def test_the_straight_line_forward_shares_nothing():
    """Not a line of refmodel, nor of anything but the gguf package, NumPy and the standard library; and no magnitudes of ours."""
    tree = ast.parse(Path(straight.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"math", "pathlib", "typing", "gguf", "gguf.quants", "numpy"}


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
OWN_YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 6}
OWN_YARN |= {"yarn_beta_fast": 0.5, "yarn_beta_slow": 0.05, "yarn_log_multiplier": 0.75}
BEYOND = {  # what a file may have beyond its architecture; tests/test_live.py has it beside llama.cpp
    "llama, divisors": ("llama", {"rope_freqs": True}),
    "llama, linear": ("llama", {"scaling": {"type": "linear", "factor": 3.0, "attn_factor": 1.25}}),
    "llama, yarn": ("llama", {"scaling": YARN}),
    "qwen2, yarn": ("qwen2", {"scaling": YARN | {"attn_factor": 0.75}}),
    "mistral3, yarn with numbers of its own": ("mistral3", {"scaling": OWN_YARN}),
    "mistral3, no growth": ("mistral3", {"temperature": 0.0, "scaling": {"type": "linear", "factor": 3.0}}),
    "lfm2, long convolutions": ("lfm2", {"K": 5, "tied": True}),
    "gemma3, no window": ("gemma3", {"window": 0, "n_layer": 2}),
    "gemma3, linear": ("gemma3", {"scaling": {"type": "linear", "factor": 8.0}}),
    "gemma3, capped logits": ("gemma3", {"softcap": 1.5}),
    "qwen3moe, one expert": ("qwen3moe", {"used": 1}),
    "qwen35moe, one expert": ("qwen35moe", {"used": 1}),
    "qwen3next, one expert": ("qwen3next", {"used": 1}),
    "qwen35, sections": ("qwen35", {"sections": [3, 2, 0]}),
    "qwen3next, key heads": ("qwen3next", {"Hv": 3, "alike": "as many key heads as value heads"}),
    "qwen35moe, key heads": ("qwen35moe", {"Hv": 3, "alike": "as many key heads as value heads"}),
    **{f"{arch}, scales": (arch, {"scales": True}) for arch in ARCHITECTURES},
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_a_file_may_have_beyond_its_architecture(name, tmp_path):
    arch, shape = BEYOND[name]
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=7, **shape))
    logits, _ = straight.forward(model.path, TOKENS)
    bound = 1e-15 if "yarn" in name else 1e-24  # a pair's share of the scale is a float32 in llama.cpp, and here: 6e-8, squared
    assert nmse(model.forward(TOKENS, numerics="oracle"), logits) <= bound
    without = {"scaling": {}, "softcap": 0.0, "sections": (), "scales": False}
    plain = tiny.build(tmp_path / "plain.gguf", arch, seed=7, **shape | without)
    assert bool({*without} & {*shape}) == (nmse(straight.forward(plain, TOKENS)[0], logits) > 1e-12), "it makes a difference"


@settings(max_examples=examples(4))
@given(data=st.data())
def test_reference_stays_near_the_oracle(model, data):
    route = data.draw(routes(model.n_layer))
    exact = model.forward(TOKENS, route, "oracle")
    assert nmse(model.forward(TOKENS, route), exact) <= 1e-11  # float32 rounding of up to 2 n_layer blocks


@NUMERICS
@settings(max_examples=examples(3))
@given(data=st.data())
def test_any_split_of_the_prompt_gives_the_same_bits(models, arch, numerics, data):
    model = models(arch)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(TOKENS) - 1), max_size=4)))
    session = model.session(numerics=numerics)
    parts = [session.forward(TOKENS[a:b]) for a, b in zip([0, *cuts], [*cuts, len(TOKENS)])]
    same_bits(np.concatenate(parts), model.forward(TOKENS, numerics=numerics))


@NUMERICS
def test_last_is_the_last_row_of_all(models, arch, numerics):
    model = models(arch)
    same_bits(model.forward(TOKENS, numerics=numerics, logits="last"), model.forward(TOKENS, numerics=numerics)[-1:])


@NUMERICS
def test_the_identity_route_changes_no_bit(models, arch, numerics):
    model = models(arch)
    same_bits(model.forward(TOKENS, list(range(model.n_layer)), numerics), model.forward(TOKENS, None, numerics))


def test_tapping_changes_no_bit(model):
    same_bits(model.forward(TOKENS, tapper=Seen(), scores=True), model.forward(TOKENS))


def test_later_tokens_do_not_reach_back(model):
    same_bits(model.forward([*TOKENS[:-1], 99])[:-1], model.forward(TOKENS)[:-1])


def test_a_block_visited_twice_has_one_kind_and_two_states(model):
    route = model.route([0, 1, 0, 1, *range(2, model.n_layer)])
    session = model.session(route)
    session.forward(TOKENS)
    assert len(session.states) == len(route.layers)
    assert len({id(state) for state in session.states}) == len(session.states)
    assert type(session.states[0]) is type(session.states[2])


def test_a_new_session_remembers_nothing(model):
    model.session().forward([1, 2, 3])
    same_bits(model.session().forward(TOKENS), model.forward(TOKENS))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_prompts_shorter_than_the_convolution(model, length):
    logits, _ = straight.forward(model.path, TOKENS[:length])
    assert nmse(model.forward(TOKENS[:length], numerics="oracle"), logits) <= 1e-24


@pytest.mark.parametrize(
    ("tokens", "words"), [([], "at least one"), ([1, -2], "token -2 at place 1"), ([10**9], "outside the vocabulary")]
)
def test_tokens_outside_the_vocabulary_are_named(model, tokens, words):
    with pytest.raises(TokenError, match=words):
        model.forward(tokens)


def test_a_route_out_of_range_is_named(model):
    with pytest.raises(RouteError, match="99"):
        model.forward(TOKENS, [0, 99])


class Seen:
    """Keeps a copy of every tap."""

    def __init__(self):
        self.taps = {}

    def __call__(self, name, x):
        assert name not in self.taps, f"{name} was tapped twice"
        self.taps[name] = np.array(x)
        return x
