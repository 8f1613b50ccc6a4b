"""Where a run is wrong, and what holds there, whether or not the library has a fault that makes it so."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from ...compare.verdict import stem
from ...compare.where import block_of, operation
from ...model.model import Model
from ...model.route import Route
from .judging import Judged
from .relation import Relation, relate

HEADS_FIRST = ("kqv", "kq", "kq_soft_max")  # [H, T, ...]
CHANNELS_FIRST = ("conv_input", "conv_states_reshaped", "conv_state_last")  # [C, ...]
STATES = ("state_predelta", "new_state")  # [H, D, D]


@dataclass(frozen=True)
class Located:
    """The first place that is wrong.

    tap        its name
    block      the position of its block; None outside of blocks, or where only what comes after all blocks was recorded
    operation  ggml's operation that makes it; None where that cannot be known from what was recorded
    relation   the simplest relation of theirs to ours; None if none holds
    blocks     the positions with something wrong
    """

    tap: str
    block: int | None
    operation: str | None
    relation: Relation | None
    blocks: tuple[int, ...]


def located(model: Model, route: Route, other: Other, judged: Judged) -> Located | None:
    """The first place at which rounding does not explain a healthy run; None if there is none."""
    wrong = judged.wrong
    if not wrong:
        return None
    tap = wrong[0]
    blocks = sorted({block for name in wrong if (block := block_of(name)) is not None})
    return Located(tap, block_of(tap), operation(tap, model, other), relation_at(model, other, judged, tap), tuple(blocks))


def relation_at(model: Model, other: Other, judged: Judged, tap: str) -> Relation | None:
    """The relation of their numbers to ours at a tap, each started from the same inputs; None if it has no whole numbers."""
    if tap not in judged.seen.ours or tap in other.views:
        return None
    ours, theirs = judged.seen.ours[tap], other.taps[tap]
    if ours.size != theirs.size or not (np.isfinite(ours).all() and np.isfinite(theirs).all()) or ours.ndim < 2:
        return None
    ours, theirs = (by_tokens(tap, x.reshape(ours.shape)) for x in (ours, theirs))
    noise = judged.noise.get(tap, 0.0)
    found = relate(ours, theirs, earlier(other, judged, tap, ours.size), model.hp, 30 * noise)
    block = block_of(tap)
    if found is None and block is not None and tap.startswith("l_out-"):
        before = judged.seen.inputs.get((0, block))
        if before is not None and before.size == ours.size:
            x = before.reshape(ours.shape)
            found = relate(ours - x, theirs - x, {}, model.hp, 30 * noise)
            found = found and Relation(found.kind, f"of what the block adds to its input, {found.words}", found.left)
    return found


def by_tokens(tap: str, x: F) -> F:
    """A tap's array with the tokens along its first axis; a state, which belongs to no token, with an axis of one before it."""
    name = stem(tap).partition("#")[0]
    if name in HEADS_FIRST:
        return x.swapaxes(0, 1)
    if name in CHANNELS_FIRST:
        return x.T
    return x[None] if name in STATES else x


def earlier(other: Other, judged: Judged, tap: str, size: int) -> Mapping[str, F]:
    """Their arrays of that size that the same block computed before a tap, the newest last."""
    out: dict[str, F] = {}
    for name in judged.seen.nmse:
        if name == tap:
            break
        if block_of(name) == block_of(tap) and name not in other.views and other.taps[name].size == size:
            out[name] = other.taps[name]
    return out
