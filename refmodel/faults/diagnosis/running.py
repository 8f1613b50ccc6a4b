"""Runs of an engine next to another program's numbers: each operation starts from theirs, and only what has to run is run.

A block whose input the other side recorded starts from that, so a fault cannot reach the blocks after it, and only blocks that it
touches run again. Where an input was not recorded, the block after runs too, up to the logits; what comes before the first touched
block is taken from the healthy run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...arrays import F
from ...compare.diff import shows_scores
from ...compare.other_side import Other
from ...compare.rounding import Standing
from ...compare.rows import nmse_of
from ...forward.call import Call, passing
from ...forward.taps import in_call
from ...model.route import Route
from ...model.session import Session, checked_tokens
from ..altered import touched
from ..fault import Engine, Fault
from ..sites import GROUPS, OUTSIDE

Round = Callable[[str, F], F]
"""What a program that rounds makes of a tap: (name, array) -> array."""


def as_computed(name: str, x: F) -> F:
    """No rounding besides that of the numerics."""
    return x


@dataclass(frozen=True)
class Reach:
    """What of a pass runs.

    positions  blocks of the route, in order
    ends       whether the norm after the last block and the head run
    """

    positions: tuple[int, ...]
    ends: bool


@dataclass(frozen=True)
class Seen:
    """What a run computed where the other side has numbers.

    nmse    tap -> NMSE to theirs; infinite for another shape, or where only one side has numbers that are finite
    ours    tap -> our part of it
    inputs  (call, position) -> what a block read, [T, E]
    finite  whether every one of our numbers is
    """

    nmse: Mapping[str, float]
    ours: Mapping[str, F]
    inputs: Mapping[tuple[int, int], F] = field(default_factory=dict)

    def over(self, healthy: "Seen") -> "Seen":
        """This run, and the healthy one where this one did not run."""
        return Seen({**healthy.nmse, **self.nmse}, {**healthy.ours, **self.ours}, healthy.inputs)


def everything(route: Route) -> Reach:
    """All blocks, and the head."""
    return Reach(tuple(range(len(route.layers))), True)


def given(other: Other, position: int, call: int) -> bool:
    """Whether the other side recorded what block `position` puts out in a call, whole."""
    tap = in_call(f"l_out-{position}", call)
    return tap in other.taps and tap not in other.views


def closed(route: Route, other: Other, positions: Iterable[int], ends: bool) -> Reach:
    """What has to run if these blocks do: those after them, as far as their outputs were not recorded."""
    run, before = set(positions), False
    for position in range(len(route.layers)):
        if before and not all(given(other, position - 1, call) for call in range(len(other.calls))):
            run.add(position)
        before = position in run
    last = len(route.layers) - 1
    return Reach(tuple(sorted(run)), ends or (last in run and not given(other, last, 0)))


def reach(fault: Fault, engine: Engine, route: Route, other: Other, chosen: Iterable[int] | None = None) -> Reach:
    """What has to run to see a fault.

    chosen  the blocks that are looked at; None for all
    """
    groups = touched(engine.model, fault.at)
    kinds = engine.model.kinds
    wanted = set(range(len(route.layers)) if chosen is None else chosen)
    if not groups:
        return closed(route, other, wanted, True)
    if embeds(groups) and (fed := fault.on(engine)) and fed.feed is not engine.feed:
        return everything(route)  # other tokens differ everywhere
    positions = {p for p in wanted if GROUPS[kinds[route.layers[p]]] in groups}
    if embeds(groups):
        positions.add(0)
    return closed(route, other, positions, OUTSIDE in groups)


def embeds(groups: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the embedding is among taps outside of blocks."""
    return any(tap in EMBEDDING for tap in groups.get(OUTSIDE, ()))


EMBEDDING = ("inp_scaled", "embd", "model.input_embed", "model.embed_tokens")


def union(parts: Sequence[Reach]) -> Reach:
    """What has to run to see several faults."""
    return Reach(tuple(sorted({p for part in parts for p in part.positions})), any(part.ends for part in parts))


def run(
    engine: Engine,
    route: Route,
    other: Other,
    what: Reach,
    healthy: Seen | None = None,
    rounds: Round = as_computed,
    keep: bool = True,
    reads: Round = as_computed,
) -> Seen:
    """Run what is asked for next to the other side.

    healthy  the healthy run, whose inputs are read where neither the other side nor this run has them; None for this is it
    rounds   what each tap is rounded to
    keep     whether our numbers are kept
    reads    what each of theirs is changed to before it is read, as numbers may have been before they were written
    """
    nmse, ours, inputs = dict[str, float](), dict[str, F](), dict[tuple[int, int], F]()

    def take(key: str, a: F, b: F, fresh: int) -> None:
        view = other.views.get(key) if a.size == b.size else None
        nmse[key] = distance(*(view.settled(a, b) if view else (a, b)))
        if keep:
            ours[key] = np.array(a, np.float32)

    standing = Standing(other, take, rounds, reads)
    session = engine.session(route, standing, shows_scores(other.taps))
    with passing():
        for call, tokens in enumerate(engine.feed(other.calls)):
            if other.apart and call:
                session.restart()
            standing.begin(call, len(tokens))
            one_call(session, standing, what, call, tokens, healthy, inputs)
    return Seen(nmse, ours, inputs)


def one_call(
    session: Session,
    beside: Standing,
    what: Reach,
    call: int,
    tokens: Sequence[int],
    healthy: Seen | None,
    inputs: dict[tuple[int, int], F],
) -> None:
    """One call of `run`, on the session's states; `inputs` gets what each block read."""
    t, ids = session.tensors, checked_tokens(tokens, session.n_vocab)
    c = Call(t.hp, session.num, np.arange(session.n_past, session.n_past + len(ids)), session.tapper, session.scores)
    x: F | None = None
    if 0 in what.positions:
        x = t.arch.embed(session.num.embed(t.weights["token_embd.weight"], ids, session.num.dtype), c)
    last = len(session.route.layers)
    for position, source in enumerate(session.route.layers):
        if position not in what.positions:
            x = None
            continue
        x = entering(session, beside, call, position, x, healthy)
        if healthy is None:
            inputs[call, position] = x
        x = t.arch.block(x, t.blocks[source], session.states[position], c.at(position))
    session.n_past += len(ids)
    if what.ends:
        x = entering(session, beside, call, last, x, healthy)
        if healthy is None:
            inputs[call, last] = x
        h = t.arch.final_norm(x, t.weights[f"{t.arch.FACTS.last_norm}.weight"], c)
        t.arch.head(h, t.output, c)


def entering(session: Session, beside: Standing, call: int, position: int, x: F | None, healthy: Seen | None) -> F:
    """What a block reads: the output of the block before it, if that ran; else theirs, or the healthy run's."""
    if x is not None:
        return x
    if position and given(beside.other, position - 1, call):
        before = f"l_out-{position - 1}"
        theirs = beside.other.taps[in_call(before, call)]
        if np.isfinite(theirs).all():
            read = beside.input(before, np.asarray(theirs, session.num.dtype))
            return np.ascontiguousarray(read.reshape(-1, session.tensors.hp.n_embd))
    assert healthy is not None
    return healthy.inputs[call, position].astype(session.num.dtype)


def distance(ours: F, theirs: F) -> float:
    """NMSE of an array of ours; infinite for another size, and where only one side has numbers that are finite."""
    if ours.size != theirs.size:
        return float("inf")
    found = nmse_of(ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel())
    return found if np.isfinite(found) else float("inf")
