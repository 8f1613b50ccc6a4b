"""Faults of what a sequence leaves to the next call, or to the next sequence."""

from collections import deque
from dataclasses import replace
from typing import Any

from ..arch import Hparams
from ..forward.state import Convolved, Recurrent, State
from .altered import Begin, altered
from .fault import SECOND, Engine, Fault


def never_reset(kinds: tuple[type, ...]) -> Begin:
    """New sequences begin with what the one before left, in states of these kinds."""
    left: dict[int, deque[Any]] = {}

    def begin(state: State, hp: Hparams, index: int) -> State:
        queue = left.setdefault(index, deque())
        if isinstance(state, kinds):
            if queue and was_used(queue[0]):
                state = queue.popleft()
            queue.append(state)
        return state

    return begin


def was_used(state: Any) -> bool:
    """Whether a recurrent state has seen a token."""
    return bool(state.conv.any() or (isinstance(state, Recurrent) and state.delta.any()))


def kept_states(e: Engine) -> Engine | None:
    """An engine whose recurrent states are not reset between sequences."""
    return replace(e, model=altered(e.model, begin=never_reset((Recurrent, Convolved)))) if any(e.model.hp.recurrent) else None


FAULTS = [
    Fault(
        id="F45",
        name="state-not-reset",
        family="state",
        says="A new sequence begins with the recurrent states that the one before it left.",
        evidence="lucebox #210, ik_llama.cpp #1696, llama.cpp #29092, lmdeploy #4434",
        fix="set the states of convolutions and of the delta rule to zero when a sequence begins",
        right="refmodel.model.session:restart",
        at=("conv memory", "old state", "short conv input"),
        change=kept_states,
        when=SECOND,
    ),
]
