"""Faults of what a sequence leaves to its next call, or to the next sequence."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from ..forward.state import KeyValues, Recurrent, State
from .altered import At, Begin, altered
from .changes import operation, taps
from .fault import LATER, ROUTED, ROUTED_LATER, SECOND, Change, Engine, Fault

new = partial(Fault, family="state", right="refmodel.model.session:restart")


def recurrent(parts: Callable[[State], Iterator[F]]) -> Change:
    """Some parts of recurrent states are not reset: a new sequence begins with what the one before it left."""

    def on(e: Engine) -> Engine | None:
        return replace(e, model=altered(e.model, begin=left_over(parts))) if any(e.model.hp.recurrent) else None

    return on


def left_over(parts: Callable[[State], Iterator[F]]) -> Begin:
    """A beginning that copies `parts` of the state that an earlier sequence left at the same position."""
    left: dict[int, deque[State]] = {}

    def begin(state: State, hp: Hparams, index: int) -> State:
        queue = left.setdefault(index, deque())
        if queue and any(part.any() for part in everything(queue[0])):
            for mine, old in zip(parts(state), parts(queue.popleft()), strict=True):
                mine[:] = old
        queue.append(state)
        return state

    return begin


def everything(state: State) -> Iterator[F]:
    """The arrays of a recurrent state; none of keys and values."""
    if not isinstance(state, KeyValues):
        yield state.conv
    if isinstance(state, Recurrent):
        yield state.delta


def of_rule(state: State) -> Iterator[F]:
    """The state of the delta rule."""
    if isinstance(state, Recurrent):
        yield state.delta


def zeros_later(x: F, at: At) -> F:
    """Zeros in every call but a sequence's first."""
    return np.zeros_like(x) if at.c.pos[0] else x


def forgotten_once() -> Callable[[F, At], F]:
    """Zeros in the second call of a sequence, whose first tokens came from a cache."""
    calls: dict[int, tuple[Any, int]] = {}  # by the state's identity, which is kept, so that no other gets it

    def patch(x: F, at: At) -> F:
        count = 1 + (calls[id(at.s)][1] if at.c.pos[0] and id(at.s) in calls else 0)
        calls[id(at.s)] = at.s, count
        return np.zeros_like(x) if count == 2 else x

    return patch


def once_for_each() -> Change:
    """The first later call begins without recurrent states; keys and values are there."""

    def on(e: Engine) -> Engine | None:
        return taps({"old state": forgotten_once(), "conv memory": forgotten_once()})(e)

    return on


def advanced_twice(healthy: Any, hp: Hparams, q: F, k: F, v: F, g: F, beta: F, before: F, after: F) -> F:
    """A token that is decoded finds a state in which a rejected guess is still written: here as the token itself."""
    if len(v) == 1:
        before = before.copy()
        healthy(q, k, v, g, beta, before, before)
    return np.asarray(healthy(q, k, v, g, beta, before, after))


def one_slot(e: Engine) -> Engine | None:
    """Positions of one block share its keys and values of earlier calls: those that the block's last pass wrote."""
    slots: dict[int, tuple[F, F]] = {}

    def patch(which: int) -> Callable[[F, At], F]:
        def keep(x: F, at: At) -> F:
            past, slot = len(x) - len(at.c.pos), slots.get(at.w.index)
            old = slot[which][:past] if slot and len(slot[which]) >= past else x[:past]
            mine = np.concatenate([old, x[past:]])
            newest = at.seen["keys"] if which else mine
            slots[at.w.index] = (newest, mine)
            return mine

        return keep

    return taps({"keys": patch(0), "values": patch(1)}, ("keys",))(e)


def one_state(e: Engine) -> Engine | None:
    """Positions of one block share its recurrent state: a pass begins with what the pass before it left."""
    newest: dict[int, tuple[int, F]] = {}

    def old(x: F, at: At) -> F:
        position, state = newest.get(at.w.index, (0, x))
        return state if (at.c.pos[0] or at.c.position > position) and at.w.index in newest else x

    def kept(x: F, at: At) -> F:
        newest[at.w.index] = at.c.position, x.copy()
        return x

    return taps({"old state": old, "new state": kept})(e)


FAULTS: list[Fault] = [
    new(
        id="F45",
        name="state-not-reset",
        says="A new sequence begins with the recurrent states that the one before it left.",
        evidence="lucebox #210, ik_llama.cpp #1696, llama.cpp #29092, lmdeploy #4434",
        fix="set the states of convolutions and of the delta rule to zero when a sequence begins",
        at=("conv memory", "old state", "short conv input"),
        change=recurrent(everything),
        when=SECOND,
    ),
    new(
        id="F46",
        name="state-not-carried",
        says="The state of the delta rule is not carried from one call to the next.",
        evidence="sparkinfer #1071, sparkinfer #604",
        fix="begin each call with the state that the call before it left",
        right="refmodel.arch.qwen35:delta_net",
        at=("old state",),
        change=taps({"old state": zeros_later}),
        when=LATER,
    ),
    new(
        id="F46",
        name="conv-not-carried",
        says="The inputs of the convolution are not carried from one call to the next.",
        evidence="sparkinfer #1071",
        fix="begin each call with the last K-1 inputs of the call before it",
        right="refmodel.arch.qwen35:convolution",
        at=("conv memory",),
        change=taps({"conv memory": zeros_later}),
        when=LATER,
    ),
    new(
        id="F49",
        name="packed-rule-leaks",
        says="Where a sequence follows another one the convolution begins anew, but the delta rule does not.",
        evidence="slime #1686, lmms-engine #167",
        fix="give the limits of packed sequences to the rule too, not only to the convolution",
        at=("old state",),
        change=recurrent(of_rule),
        when=SECOND,
    ),
    new(
        id="F51",
        name="guess-left-in-state",
        says="A guessed token that was rejected stays in the recurrent state, while its key and value are removed.",
        evidence="llama.cpp #20075, llama.cpp #26695, mlx-lm #1111, vllm #39273",
        fix="keep a copy of the states from before the guess, and go back to it",
        right="refmodel.model.draft_head:DraftHead",
        at=("delta output", "new state"),
        change=operation("gated_delta_rule", advanced_twice),
        when=LATER,
    ),
    new(
        id="F52",
        name="prefix-without-state",
        says="A cached prefix brings back keys and values, but not the recurrent states.",
        evidence="llama.cpp #18497, vllm-mlx #217, pegainfer #257, sglang-jax #1417",
        fix="keep the states of convolutions and of the delta rule with a cached prefix, or read the prefix again",
        right="refmodel.model.session:Session",
        at=("conv memory", "old state"),
        change=once_for_each(),
        when=LATER,
    ),
    new(
        id="F58",
        name="repeated-blocks-share-cache",
        says="Repeated passes of a block share one cache: the later pass writes over the keys and values of the earlier one.",
        evidence="executorch #19324, exllamav2 #275, exllamav3 #174, parameter-golf #1355",
        fix="give each position of a route a cache of its own",
        right="refmodel.model.session:restart",
        at=("keys", "values"),
        change=one_slot,
        when=ROUTED_LATER,
    ),
    new(
        id="F58",
        name="repeated-blocks-share-state",
        says="Repeated passes of a block share one recurrent state: the later pass begins where the earlier one ended.",
        evidence="exllamav3 #174, the class of executorch #19324",
        fix="give each position of a route a recurrent state of its own",
        at=("old state",),
        change=one_state,
        when=ROUTED,
    ),
]
