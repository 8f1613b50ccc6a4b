"""Quantization as the second trial of a route: what a packed file adds at each position, and whether repeated blocks amplify it.

Two files of one model (BF16 and Q4_K_M, say) run the same route in float32. The distance of their block outputs is measured twice:
as it accumulates, and block by block, where every block of the packed file starts from what the other file gave on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F
from ..errors import MetadataError
from ..forward.trace import Recorder, Spool, Trace
from ..gguf.format import OURS
from ..machine.partial import temporary_folder
from ..model.model import Model
from ..model.route import Route
from ..numerics import REFERENCE
from .diff import diff
from .rows import compare, ratio

KEPT = r"^(l_out-\d+|result_output)$"


ALIKE = 1.1  # a factor nearer to one than this says nothing


@dataclass(frozen=True)
class Position:
    """One position of the route.

    position     its number
    source       the block of the unrouted model
    visit        how often it has run before
    added        NMSE of its output where it starts from the other file's input: its own error
    accumulated  NMSE of its output as the packed file runs by itself
    """

    position: int
    source: int
    visit: int
    added: float
    accumulated: float


@dataclass(frozen=True)
class Trial:
    """A packed file against another under a route.

    route     in blocks of the unrouted model
    steps     all positions
    logits    NMSE of the logits under the route
    unrouted  NMSE of the logits without it; None where the copy lacks a block
    """

    route: Route
    steps: Sequence[Position]
    logits: float
    unrouted: float | None

    @property
    def amplification(self) -> float | None:
        """How many times larger the error of the logits is under the route."""
        return None if self.unrouted is None else ratio(self.logits, self.unrouted)

    @property
    def repeats(self) -> list[tuple[int, int]]:
        """Stretches of positions whose blocks have run before: first and last position."""
        out: list[tuple[int, int]] = []
        for step in self.steps:
            if step.visit and out and out[-1][1] == step.position - 1:
                out[-1] = (out[-1][0], step.position)
            elif step.visit:
                out.append((step.position, step.position))
        return out

    def growth(self, first: int, last: int) -> float:
        """By what factor the accumulated error grows over these positions; infinite from the first position on."""
        return ratio(self.steps[last].accumulated, self.steps[first - 1].accumulated) if first else np.inf

    def first_pass(self, first: int, last: int) -> tuple[int, int] | None:
        """Where the blocks of a repeated stretch ran first, as first and last position; None if that was not one stretch."""
        where = {step.source: step.position for step in reversed(self.steps)}
        places = [where[self.steps[p].source] for p in range(first, last + 1)]
        return (places[0], places[-1]) if places == list(range(places[0], places[-1] + 1)) else None

    def sentences(self) -> list[str]:
        """The result in a few lines: each repeated stretch, and the logits."""
        lines = []
        for first, last in self.repeats:
            blocks = ", ".join(str(step.source) for step in self.steps[first : last + 1])
            line = f"positions {first} to {last} repeat blocks {blocks}: the error grows {self.growth(first, last):.2f} times"
            before = self.first_pass(first, last)
            if before and before[0] > 0:
                line += f", in their first pass {self.growth(*before):.2f} times"
            lines.append(line)
        if self.logits == 0:
            lines.append("logits: no difference")
        elif self.amplification is None:
            lines.append(f"logits: NMSE {self.logits:.1e}")
        else:
            a, words = self.amplification, "leaves it as it is"
            if a > ALIKE:
                words = f"amplifies it {a:.2f} times"
            elif a < 1 / ALIKE:
                words = f"damps it {1 / a:.2f} times"
            lines.append(f"logits: NMSE {self.logits:.1e} under the route, {self.unrouted:.1e} without it: the route {words}")
        return lines


def trial(packed: Model, full: Model, words: str, tokens: Sequence[int], seen: Callable[[str], None]) -> Trial:
    """Measure the packed file against the other under a route: copies of one route, or a copy and its source, in the copy's order.

    words   the route's text
    tokens  token ids
    seen    called with the name of every tap

    MetadataError if they are not two files of one model; RouteError for a route that does not fit.
    """
    inner, theirs_inner, named = routes(packed, full, words)
    with temporary_folder() as folder:
        path = folder / "full.safetensors"
        with Spool(path, {}) as spool:
            full.session(theirs_inner, REFERENCE, Recorder(spool, KEPT, seen)).forward(tokens)
        theirs = Trace(path)
        free, alone = (
            {row.name: row.nmse for row in diff(packed, [tokens], theirs, inner, REFERENCE, anchor, seen).rows}
            for anchor in ("", "block")
        )
    visits = named.visits
    steps = [Position(p, s, visits[p], alone[f"l_out-{p}"], free[f"l_out-{p}"]) for p, s in enumerate(named.layers)]
    plain, theirs_plain = unrouted(inner, named), unrouted(theirs_inner, named)
    without = None
    if plain and theirs_plain:
        without = distance(packed.forward(tokens, plain), full.forward(tokens, theirs_plain))
    return Trial(named, steps, free["result_output"], without)


def distance(ours: F, theirs: F) -> float:
    """NMSE between two arrays of one shape."""
    return compare("result_output", ours, theirs).nmse


def routes(packed: Model, full: Model, words: str) -> tuple[Route, Route, Route]:
    """The route to run in each file, and the same route in blocks of the model that copies were made from.

    MetadataError if they are not two files of one model and one route, or a copy and its source.
    """
    maps = [map_of(model) for model in (packed, full)]
    inner = packed.route(words)
    if maps[0] == maps[1]:
        found = inner, inner, inner if maps[0] is None else through(maps[0], inner, packed)
    elif maps[1] is None and maps[0]:  # the first is a copy of the second
        named = through(maps[0], inner, packed)
        found = inner, named, named
    elif maps[0] is None and maps[1] and not words:  # and the other way round
        named = through(maps[1], full.route(), full)
        found = named, full.route(), named
    else:
        raise not_alike(packed, full)
    alike = [(m.architecture, m.n_vocab, m.hp.n_embd) for m in (packed, full)]
    if alike[0] != alike[1] or any(route.n_layer != m.n_layer for route, m in zip(found, (packed, full), strict=False)):
        raise not_alike(packed, full)
    kinds = [[m.kinds[layer] for layer in route.layers] for route, m in zip(found, (packed, full), strict=False)]
    if kinds[0] != kinds[1]:
        raise not_alike(packed, full)
    return found


def map_of(model: Model) -> tuple[int, ...] | None:
    """The source's block at each block of a copy; None for a file that is none."""
    return model.file.metadata.ints(f"{OURS}map", model.n_layer) if f"{OURS}map" in model.file.metadata else None


def through(layers: Sequence[int], inner: Route, copy: Model) -> Route:
    """A route over a copy's blocks, in blocks of its source."""
    n_source = copy.file.metadata.int(f"{OURS}source.block_count") - copy.hp.n_nextn
    return Route.of([layers[layer] for layer in inner.layers], n_source)


def not_alike(packed: Model, full: Model) -> MetadataError:
    """The error for two files that cannot be compared."""
    return MetadataError(
        f"{packed.path} and {full.path} are not two files of one model and one route; give two quantizations of the same model, "
        "or a copy and its source"
    )


def unrouted(inner: Route, named: Route) -> Route | None:
    """The blocks of the unrouted model in their order, as the files have them; None if a block is missing."""
    places = named.places
    if not all(places):
        return None
    return Route.of([inner.layers[places[source][0]] for source in range(named.n_layer)], inner.n_layer)
