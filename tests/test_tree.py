"""Prompts under many routes: the same bits as route by route, with each common beginning computed once."""

import math
from itertools import combinations

import numpy as np
import pytest
import tiny
from near import same_bits

import refmodel
from refmodel.errors import MemoryLimitError, RouteError, TokenError
from refmodel.model.route import Route
from refmodel.model.tree import Standing, executions, parted, read_routes

PROMPTS = [[7, 3, 250, 9, 9, 31], [64, 5], [1]]
ROUTES = [None, "blocks:0,2", "blocks:1,3", [0], [2, 2, 2], [0, 1, 2, 0], "blocks:0,2", [1, 0], [0, 1, 2, 0, 2]]


@pytest.fixture(scope="module", params=["llama", "qwen35", "lfm2"])
def model(request, tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("models") / f"{request.param}.gguf", request.param, seed=5))


def windows(n: int) -> list[Route]:
    """The routes of a full sweep over a model of n blocks: its own, and one for each window that is run twice."""
    return [Route.of(f"blocks:{i},{j}", n) for i, j in [(0, 0), *combinations(range(n + 1), 2)]]


@pytest.mark.parametrize("numerics", ["numpy", "oracle", "llamacpp"])
def test_each_route_has_the_bits_that_it_has_alone(model, numerics):
    batch, seen = model.batch(numerics), []
    for reading in read_routes(batch, PROMPTS, ROUTES):
        seen.append(reading.number)
        alone = model.batch(numerics)
        for n, prompt in enumerate(PROMPTS):
            same_bits(reading.hidden[n], alone.hidden({(h := alone.add(ROUTES[reading.number])): prompt})[h])
            same_bits(reading.logits(n), model.forward(prompt, ROUTES[reading.number], numerics))
    assert sorted(seen) == list(range(len(ROUTES)))
    routes = [model.route(route) for route in ROUTES]
    assert batch.work.executions == len(PROMPTS) * executions(routes)[0]


def test_what_was_read_can_be_fed_further(model):
    batch = model.batch("numpy")
    for reading in read_routes(batch, PROMPTS, ROUTES, keep=True):
        fed = batch.forward({handle: [4, 2] for handle in reading.handles})
        for handle, prompt in zip(reading.handles, PROMPTS, strict=True):
            session = model.session(ROUTES[reading.number], "numpy")
            session.forward(prompt)
            same_bits(fed[handle], session.forward([4, 2]))
            batch.drop(handle)
    assert not batch.members


def test_a_full_sweep_computes_half_of_what_it_computes_route_by_route():
    assert len(windows(30)) == 466
    assert executions(windows(30)) == (9485, 18940)
    assert all(shared <= 0.55 * alone for shared, alone in map(executions, map(windows, (24, 30, 36, 80))))


def test_the_count_is_that_of_the_tree():
    routes = [Route.of(layers, 3) for layers in ([0, 1, 2], [0, 1, 0], [0, 1], [0, 1, 2], [2])]
    assert executions(routes) == (5, 12)
    assert executions([]) == (0, 0)


@pytest.mark.parametrize("routes", [windows(12), [Route.of([*a, *b], 3) for a in np.ndindex(3, 3, 3) for b in np.ndindex(3, 3)]])
def test_few_hidden_states_wait_at_a_time(routes):
    """The heaviest branch is entered last, so that nothing waits for it."""
    most, waiting = 0, parted(sorted((route.layers, n) for n, route in enumerate(routes)), 0, Standing([], []))
    while waiting:
        branch = waiting.pop()
        waiting += parted([route for route in branch.routes if len(route[0]) > branch.end], branch.end, Standing([], []))
        most = max(most, len({id(some.at) for some in waiting}))
    assert most <= math.log2(len(routes))


def test_memory_bounds_what_is_computed_together(model):
    prompts, routes = [PROMPTS[0]], windows(model.n_layer)
    freely, tightly = model.batch("numpy"), model.batch("numpy")
    free = {reading.number: reading.hidden[0] for reading in read_routes(freely, prompts, routes, memory=1 << 30)}
    standing = 2 * free[0].nbytes  # before and after the final norm
    least = standing * (2 + int(math.log2(len(routes))))
    for reading in read_routes(tightly, prompts, routes, memory=least):
        same_bits(reading.hidden[0], free[reading.number])
    assert freely.work.executions == tightly.work.executions
    assert freely.work.calls < tightly.work.calls
    with pytest.raises(MemoryLimitError, match=r"6 tokens under .* routes take at least .* raise --memory"):
        next(read_routes(tightly, prompts, routes, memory=least - 1))


def test_what_cannot_be_read_is_refused(model):
    batch = model.batch("numpy")
    with pytest.raises(RouteError):
        next(read_routes(batch, PROMPTS, ["blocks:0,99"]))
    with pytest.raises(TokenError):
        next(read_routes(batch, [[]], [None]))
    assert list(read_routes(batch, PROMPTS, [])) == []
