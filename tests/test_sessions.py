"""Sequences that are fed, forked, begun anew and gone back in any order: each has the bits of one call with all of its tokens."""

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from near import same_bits
from strategies import examples

import refmodel

TOKENS = st.lists(st.integers(0, 40), min_size=1, max_size=5)
ROUTES = [None, [0, 1, 2, 1, 2, 3], [3, 1, 0], [2, 2, 2]]
NUMERICS = "numpy"  # kernels keep nothing between calls


class Sequences(RuleBasedStateMachine):
    """A batch under random calls. Next to each of its sequences is the list of its tokens."""

    model: refmodel.Model
    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.batch = self.model.batch(NUMERICS)
        self.seen: dict[int, tuple[int, list[int]]] = {}
        self.whole: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    def one_call(self, route: int, tokens: list[int]) -> np.ndarray:
        """The last token's logits of a session that is fed all at once."""
        key = (route, tuple(tokens))
        if key not in self.whole:
            self.whole[key] = self.model.forward(tokens, ROUTES[route], NUMERICS, "last")
        return self.whole[key]

    @rule(target=handles, route=st.integers(0, len(ROUTES) - 1))
    def begin(self, route: int) -> int:
        handle = self.batch.add(ROUTES[route])
        self.seen[handle] = (route, [])
        return handle

    def feed(self, calls: dict[int, list[int]]) -> None:
        got = self.batch.forward(calls, "last")
        for handle, tokens in calls.items():
            route, before = self.seen[handle]
            before += tokens
            same_bits(got[handle], self.one_call(route, before))

    @rule(handle=handles, tokens=TOKENS)
    def prefill(self, handle: int, tokens: list[int]) -> None:
        self.feed({handle: tokens})

    @rule(handle=handles, token=st.integers(0, 40))
    def decode(self, handle: int, token: int) -> None:
        self.feed({handle: [token]})

    @rule(one=handles, other=handles, tokens=TOKENS, token=st.integers(0, 40))
    def both(self, one: int, other: int, tokens: list[int], token: int) -> None:
        self.feed({one: tokens, other: [token]} if one != other else {one: tokens})

    @rule(target=handles, handle=handles)
    def fork(self, handle: int) -> int:
        """Whoever keeps the first one can go back to it."""
        other = self.batch.fork(handle)
        route, before = self.seen[handle]
        self.seen[other] = (route, list(before))
        return other

    @rule(handle=consumes(handles))
    def drop(self, handle: int) -> None:
        self.batch.drop(handle)
        del self.seen[handle]

    @invariant()
    def lengths(self) -> None:
        assert {handle: len(tokens) for handle, (_, tokens) in self.seen.items()} == {
            handle: member.n_past for handle, member in self.batch.members.items()
        }


@pytest.mark.parametrize(("arch", "how"), [("qwen35", {"interval": 2}), ("gemma3", {"window": 3}), ("lfm2", {})])
def test_any_order_of_calls_gives_the_bits_of_one(arch, how, tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=1, n_layer=4, **how))
    machine = type("Machine", (Sequences,), {"model": model})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(4),
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("arch", ["qwen35", "gemma3"])
def test_a_session_that_begins_anew_remembers_nothing(arch, tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=1, n_layer=4))
    session = model.session(numerics=NUMERICS)
    session.forward([5, 6, 7])
    session.restart()
    same_bits(session.forward([1, 2]), model.forward([1, 2], numerics=NUMERICS))


@pytest.mark.parametrize("arch", ["qwen35", "gemma3", "lfm2"])
def test_a_block_that_runs_twice_is_two_blocks_with_the_same_weights(arch, tmp_path):
    """A file with the block copied, in its own order, computes what the route computes."""
    from refmodel.surgery.gguf import routed

    how = {"interval": 2} if arch == "qwen35" else {"window": 3} if arch == "gemma3" else {}
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=1, n_layer=4, **how))
    route = [0, 1, 0, 1, 2, 3]
    copy = refmodel.load(routed(model, model.route(route), tmp_path / "copy.gguf"))
    tokens = [3, 1, 4, 1, 5]
    same_bits(copy.forward(tokens, numerics=NUMERICS), model.forward(tokens, route, NUMERICS))
