"""Shared work: prompts that are read under many routes, where each common beginning of routes is computed once.

Routes form a tree: two that begin with the same blocks are one branch as far as they agree. For the 466 routes of a model of 30
blocks, its own and one for each window that is run twice, the tree has half of the positions: 9,485 of 18,940. What a sweep uses:

    batch = model.batch("fast")
    for reading in read_routes(batch, prompts, routes):  # in the order of the tree; each route once
        reading.number                  # its place in `routes`
        reading.hidden[p]               # [T, E], what the head reads of prompt p
        reading.logits(p, slice(3, 9))  # [6, V] of some tokens

With `keep=True` each reading also has `handles`, one for each prompt: sequences of the batch that have read it, ready to decode.
The bits are those of `batch.add(route)` and `batch.hidden({handle: prompt})`, one route at a time.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..arrays import F
from ..errors import MemoryLimitError
from ..forward.call import passing
from ..forward.state import State
from ..machine.memory import available
from .batch import Batch, Member
from .elevator import AT_ONCE, Rider, ride
from .route import Route
from .session import checked_tokens


@dataclass(frozen=True)
class Reading:
    """Prompts that were read under one route.

    number   the route's place among those that were asked for
    route    the route
    hidden   what the head reads of each prompt, [T, E] each
    handles  with `keep`: for each prompt the sequence of the batch that has read it; whoever asked for it drops it
    """

    batch: Batch
    number: int
    route: Route
    hidden: list[F]
    handles: list[int]

    def logits(self, prompt: int, tokens: slice = slice(None)) -> F:
        """The logits of some tokens of a prompt, [T, V]; `prompt` is its place among the prompts."""
        return self.batch.head([self.hidden[prompt][tokens]])[0]


Routes = list[tuple[tuple[int, ...], int]]
"""Routes as their blocks and their number, sorted."""


@dataclass(frozen=True)
class Standing:
    """What is known of the prompts at some position of the tree.

    xs      what the next position reads of each prompt, [T, E] each
    states  with `keep`: for each prompt what the positions so far remember; else nothing
    """

    xs: list[F]
    states: list[list[State]]


@dataclass(frozen=True)
class Branch:
    """Routes that agree up to a position.

    routes  all of them
    start   positions that were computed when it begins
    end     positions that the routes have in common
    at      what is known at `start`
    """

    routes: Routes
    start: int
    end: int
    at: Standing

    @property
    def is_leaf(self) -> bool:
        """Whether its routes end where the common part does."""
        return len(self.routes[-1][0]) == self.end


def read_routes(
    batch: Batch,
    prompts: Sequence[Sequence[int]],
    routes: Sequence[Route | str | Sequence[int] | None],
    *,
    memory: int | None = None,
    keep: bool = False,
) -> Iterator[Reading]:
    """Read all prompts under all routes, depth first; each prompt is one call.

    batch    computes; its `work` counts what was done
    prompts  token ids, at least one each
    routes   as for Model.route; those that are equal are computed once
    memory   bytes that may be taken for hidden states and, with `keep`, for keys and values; None: half of what is free
    keep     keep the sequences, so that they can be fed further

    Yields a Reading for each route. Hidden states wait where routes part, at no more than log2 of the number of routes such places
    at a time: the branch with the most routes is entered last, when nothing has to wait for it. `memory` says how many branches are
    computed together. RouteError, TokenError; MemoryLimitError if what has to wait, and one branch, take more than `memory`.
    """
    chosen = [Route.of(route, batch.tensors.n_layer) for route in routes]
    xs = batch.embedded([checked_tokens(tokens, batch.n_vocab) for tokens in prompts])
    waiting = parted(sorted((route.layers, n) for n, route in enumerate(chosen)), 0, Standing(xs, [[] for _ in xs] if keep else []))
    at_once = branches_at_once(batch, chosen, xs, memory, keep)
    while waiting:
        some = [waiting.pop()]
        while waiting and some[-1].is_leaf and waiting[-1].is_leaf and len(some) < at_once:
            some.append(waiting.pop())
        for branch, there in zip(some, grown(batch, some, keep), strict=True):
            yield from readings(batch, branch, there, chosen, keep)
            waiting += parted([route for route in branch.routes if len(route[0]) > branch.end], branch.end, there)


def branches_at_once(batch: Batch, routes: Sequence[Route], xs: Sequence[F], memory: int | None, keep: bool) -> int:
    """How many branches are computed together: enough to stack AT_ONCE tokens at most blocks, within the memory.

    MemoryLimitError if one does not fit next to what has to wait.
    """
    free = available()
    limit = memory if memory is not None else free // 2 if free is not None else None
    tokens, standing = sum(map(len, xs)), 2 * sum(x.nbytes for x in xs)  # before and after the final norm
    longest = max(routes, key=lambda route: len(route.layers), default=None)
    states = sum(bytes_of_states(batch, longest, len(x)) for x in xs) if keep and longest else 0
    wanted = -(-2 * AT_ONCE // max(tokens, 1))
    if limit is None:
        return wanted
    waits = standing * (1 + int(math.log2(max(len(routes), 1))))
    least = waits + standing + 2 * states
    if least > limit:
        gib = "{:.2f} GiB".format
        raise MemoryLimitError(
            f"{tokens:,} tokens under {len(routes):,} routes take at least {gib(least / 2**30)}; the limit is "
            f"{gib(limit / 2**30)}: read fewer prompts at once, or raise --memory"
        )
    return max(1, min(wanted, 1 + (limit - least) // (standing + states)))


def bytes_of_states(batch: Batch, route: Route, tokens: int) -> int:
    """Bytes that a sequence remembers after `tokens` tokens under a route."""
    model, num = batch.tensors, batch.num
    kinds = Counter(route.layers)
    return sum(n * model.arch.new_state(model.hp, source, num.dtype).bytes(tokens, num.cache) for source, n in kinds.items())


def parted(routes: Routes, start: int, at: Standing) -> list[Branch]:
    """Routes that agree up to `start`, by the block that comes next. The last branch of the list is entered first."""
    groups = [list(group) for _, group in groupby(routes, key=lambda route: route[0][start])]
    branches = [Branch(group, start, common(group[0][0], group[-1][0]), at) for group in groups]
    return sorted(branches, key=lambda branch: (branch.is_leaf, -len(branch.routes)))


def grown(batch: Batch, branches: Sequence[Branch], keep: bool) -> list[Standing]:
    """Compute what the routes of each branch have in common: what is known at its `end`."""
    riders = list[Rider]()
    for branch in branches:
        layers = branch.routes[0][0][branch.start : branch.end]
        for x in branch.at.xs:
            fresh = Fresh(batch, layers, len(x))
            riders.append(Rider(layers, [fresh[at] for at in range(len(layers))] if keep else fresh, np.arange(len(x)), x))
    with passing():
        ride(batch.tensors, batch.num, riders, batch.work)
    out, each = list[Standing](), len(branches[0].at.xs)
    for n, branch in enumerate(branches):
        own = riders[n * each : (n + 1) * each]
        states = [
            [*before, *(rider.states[at] for at in range(rider.at))] for before, rider in zip(branch.at.states, own, strict=False)
        ]
        out.append(Standing([rider.x for rider in own], states))
    return out


def readings(batch: Batch, branch: Branch, there: Standing, routes: Sequence[Route], keep: bool) -> Iterator[Reading]:
    """A Reading for each route that ends where the branch does."""
    numbers = [number for layers, number in branch.routes if len(layers) == branch.end]
    hidden = batch.normed(there.xs) if numbers else []
    for number in numbers:
        handles = [
            batch.join(Member(routes[number], [state.fork() for state in states], len(x)))
            for x, states in zip(there.xs, there.states, strict=False)
        ]
        yield Reading(batch, number, routes[number], hidden, handles)


@dataclass(frozen=True)
class Fresh:
    """States of positions that have seen nothing: each is made when it is asked for, and remembered by nobody.

    layers  the source block at each position
    tokens  how many will be fed
    """

    batch: Batch
    layers: Sequence[int]
    tokens: int

    def __getitem__(self, at: int) -> State:
        model = self.batch.tensors
        state = model.arch.new_state(model.hp, self.layers[at], self.batch.num.dtype)
        state.reserve(self.tokens)
        return state


def executions(routes: Sequence[Route]) -> tuple[int, int]:
    """How many times a block is run for each prompt: with shared beginnings, and route by route."""
    shared, before = 0, tuple[int, ...]()
    for layers in sorted(route.layers for route in routes):
        shared += len(layers) - common(before, layers)
        before = layers
    return shared, sum(len(route.layers) for route in routes)


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many blocks two routes have in common at their beginning."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
