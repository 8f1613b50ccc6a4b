"""Faults of routes: what a runtime gets wrong if blocks are repeated, and what a copy of them gets wrong."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arrays import F
from ..forward.call import Call
from ..model.route import Route
from .altered import At, altered
from .changes import operation, taps
from .fault import ROUTED, Engine, Fault

new = partial(Fault, family="surgery", right="refmodel.model.session:restart")


def kinds_by_position(e: Engine) -> Engine | None:
    """A block's kind, where kinds have the same tensors, is that of its position in the file before it was routed."""
    sliding = e.model.hp.sliding
    if len(set(sliding)) < 2:
        return None

    def around(x: F, w: Any, s: Any, c: Call) -> Call:
        if w is None or c.position >= len(sliding) or sliding[c.position] == sliding[w.index]:
            return c
        own = tuple(sliding[c.position] if i == w.index else kind for i, kind in enumerate(sliding))
        return replace(c, hp=replace(c.hp, sliding=own))

    return replace(e, model=altered(e.model, around))


def inclusive(route: Route) -> Route:
    """A route whose repeated windows end with the block that comes after them."""
    layers = list(route.layers)
    for place in reversed(range(len(layers) - 1)):
        after = layers[place] + 1
        if layers[place + 1] <= layers[place] and after < route.n_layer:
            layers.insert(place + 1, after)
    return Route(tuple(layers), route.n_layer)


def one_cache(e: Engine) -> Engine | None:
    """Repeated passes of a block append to one cache: each sees the keys of the pass before it as if they were earlier tokens."""
    caches: dict[int, tuple[int, F, F]] = {}

    def attention(healthy: Any, hp: Any, q: F, k: F, v: F, *given: Any) -> F:
        return np.asarray(healthy(q, *extra.pop(), *given)) if extra else np.asarray(healthy(q, k, v, *given))

    extra: list[tuple[F, F]] = []

    def keys(x: F, at: At) -> F:
        at.seen["first keys"] = x
        return x

    def values(x: F, at: At) -> F:
        shape = (len(x), at.c.hp.n_head_kv, -1)
        k, v = at.seen["first keys"].reshape(shape), x.reshape(shape)
        before = caches.get(at.w.index)
        if before and before[0] < at.c.position:
            k, v = np.concatenate([before[1], k]), np.concatenate([before[2], v])
            extra.append((np.ascontiguousarray(k), np.ascontiguousarray(v)))
        caches[at.w.index] = at.c.position, k, v
        return x

    changed = taps({"keys": keys, "values": values})(e)
    return changed and operation("attention", attention)(changed)


FAULTS: list[Fault] = [
    new(
        id="F56",
        name="kinds-not-remapped",
        says="Lists of one value for each block are not rearranged with the blocks: a moved block gets the kind of its new place.",
        evidence="circuit-finder, llama.cpp #23920",
        fix="rearrange every list of one value for each block along the route",
        right="refmodel.surgery.gguf:routed_extra",
        at=("q rotated", "k rotated", "attention"),
        change=kinds_by_position,
        keys=("attention.sliding_window_pattern",),
        when=ROUTED,
    ),
    new(
        id="F57",
        name="window-inclusive",
        says="A window i,j is run up to block j, where it ends before j.",
        evidence="a sweep script; two notations are in use",
        fix="run blocks i to j-1 twice for the window i,j",
        right="refmodel.model.route:inserted",
        at=("output",),
        change=lambda e: replace(e, follow=lambda route: inclusive(e.follow(route))),
        when=ROUTED,
    ),
    new(
        id="F59",
        name="copies-append-to-one-cache",
        says="A copied layer keeps the index of its original: both append their keys and values to one cache.",
        evidence="a wrapper of repeated layers",
        fix="give each copy an index of its own, and a cache",
        at=("attention",),
        change=one_cache,
        when=ROUTED,
    ),
]
