"""Where a run is wrong, and what holds there, whether or not the library has a fault that makes it so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from ...compare.verdict import stem
from ...compare.where import block_of, operation
from ...model.model import Model
from ...model.route import Route
from ..fault import Engine
from .judging import Judged
from .relation import HOLDS, Relation, relate
from .running import Reach, everything, run
from .search import small

HEADS_FIRST = ("kqv", "kq", "kq_soft_max")  # [H, T, ...]
CHANNELS_FIRST = ("conv_input", "conv_states_reshaped", "conv_state_last")  # [C, ...]
LOGITS = "result_output"
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
    relation = relation_at(model, other, judged, tap) or other_blocks(model, route, other, judged, tap)
    return Located(tap, block_of(tap), operation(tap, model, other), relation, tuple(blocks))


def other_blocks(model: Model, route: Route, other: Other, judged: Judged, tap: str) -> Relation | None:
    """The other route that theirs runs: another block of the file at the position of a tap; of logits alone, one that is left out,
    run twice, or exchanged with the next one. None if it is none of these.
    """
    position = block_of(tap)
    output = LOGITS if position is None else f"l_out-{position}"
    here = position is not None and (0, position) in judged.seen.inputs
    if output not in judged.seen.nmse or not (here or (output == tap and len(other.taps) == 1 and small(model, other))):
        return None
    asked = Reach((position,), False) if position is not None else None
    for words, layers in exchanged(route, position) if position is not None else rearranged(route):
        new = Route(layers, route.n_layer)
        found = run(
            Engine(model, judged.numerics), new, other, asked or everything(new), judged.seen if asked else None, keep=False
        )
        left = found.nmse.get(output, np.inf)
        if left <= max(judged.allowed.get(output, 0.0), HOLDS * judged.seen.nmse[output]):
            return Relation("another route", words, left)
    return None


Routes = Iterator[tuple[str, tuple[int, ...]]]


def exchanged(route: Route, position: int) -> Routes:
    """The routes with another block at a position: (in words, the blocks)."""
    for source in range(route.n_layer):
        if source != route.layers[position]:
            words = f"block {source} of the file runs at position {position}, where block {route.layers[position]} belongs"
            yield words, (*route.layers[:position], source, *route.layers[position + 1 :])


def rearranged(route: Route) -> Routes:
    """The routes with one block left out, run twice, or exchanged with the next one: (in words, the blocks)."""
    layers = route.layers
    for p, source in enumerate(layers):
        if len(layers) > 1:
            yield f"block {source} is left out", (*layers[:p], *layers[p + 1 :])
        yield f"block {source} runs twice", (*layers[: p + 1], *layers[p:])
        if p + 1 < len(layers):
            words = f"blocks {source} and {layers[p + 1]} are exchanged"
            yield words, (*layers[:p], layers[p + 1], source, *layers[p + 2 :])


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
