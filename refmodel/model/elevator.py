"""The elevator: tokens of many sequences pass the blocks together, whatever their routes.

It goes over the blocks from the first to the last, again and again. At each block all that wait there get in: their tokens are
stacked along T, and the block runs once for all of them. One whose route jumps back waits for the next pass. A schedule that let
everyone wait for the last would run each repeated part for one sequence at a time; this one meets, with many different windows,
about two thirds of them at every block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..arrays import F, Ints
from ..forward.call import Call
from ..forward.numerics import Numerics
from ..forward.state import State
from ..forward.taps import silent
from .tensors import Tensors

AT_ONCE = 1024  # tokens that are stacked at most, unless one sequence has more: activations need no more memory than for these


class States(Protocol):
    """What positions remember, by their numbers."""

    def __getitem__(self, at: int, /) -> State: ...


@dataclass
class Rider:
    """New tokens of one sequence on their way through its route.

    layers  the source block at each position
    states  what each position remembers
    pos     [T]     where the tokens are in the sequence
    x       [T, E]  what the next block reads; at the end what the last one gave
    at      the next position
    """

    layers: Sequence[int]
    states: States
    pos: Ints
    x: F
    at: int = 0

    @property
    def next(self) -> int:
        """The block it waits for; -1 at the end of the route."""
        return self.layers[self.at] if self.at < len(self.layers) else -1


@dataclass
class Work:
    """What was computed, counted as it is done.

    calls       runs of a block, each with all tokens that were stacked
    executions  runs of a block for one sequence: what the same would take one by one
    visits      runs of a block for one token
    """

    calls: int = 0
    executions: int = 0
    visits: int = 0


def ride(model: Tensors, num: Numerics, riders: Sequence[Rider], work: Work) -> None:
    """Take all riders to the ends of their routes; `work` counts it.

    A token's bits are those that it has alone. Where the numerics does not promise that (`by_token`), nothing is stacked.
    """
    while any(rider.next >= 0 for rider in riders):
        for source in range(model.n_layer):
            for group in stacks([rider for rider in riders if rider.next == source], num.by_token):
                visit(model, num, source, group)
                work.calls += 1
                work.executions += len(group)
                work.visits += sum(len(rider.x) for rider in group)


def stacks(riders: Sequence[Rider], together: bool) -> Iterator[list[Rider]]:
    """The riders in groups of at most AT_ONCE tokens, in order; each alone unless `together`."""
    group, tokens = list[Rider](), 0
    for rider in riders:
        if group and (not together or tokens + len(rider.x) > AT_ONCE):
            yield group
            group, tokens = [], 0
        group.append(rider)
        tokens += len(rider.x)
    if group:
        yield group


def visit(model: Tensors, num: Numerics, source: int, group: Sequence[Rider]) -> None:
    """Run one block for a group of riders that wait for it."""
    parts = cut([len(rider.x) for rider in group])
    states = [rider.states[rider.at] for rider in group]
    x, pos = np.concatenate([rider.x for rider in group]), np.concatenate([rider.pos for rider in group])
    several = len(group) > 1
    c = Call(model.hp, num, pos, silent, parts=tuple(parts) if several else ())
    y = model.arch.block(x, model.blocks[source], states if several else states[0], c)
    for rider, part in zip(group, parts, strict=True):
        rider.x = y[part]
        rider.at += 1


def cut(lengths: Sequence[int]) -> list[slice]:
    """Consecutive slices of these lengths."""
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
