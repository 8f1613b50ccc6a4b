"""Searches whose later routes depend on earlier scores: the two-pass search, and the beam over several windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import RouteError, SweepError
from ..model.route import Route
from .results import results
from .sweep import Run, full
from .verdict import complete, gains_of, seen_probes
from .windows import Window, repeated


@dataclass(frozen=True)
class Beam:
    """How wide a beam search is; the defaults are those of Ng's search.

    width   routes that are extended at each depth
    seeds   windows that it begins with
    pool    windows that may be added
    expand  how many of them are tried with each route
    depth   windows of a route at most
    """

    width: int = 8
    seeds: int = 16
    pool: int = 64
    expand: int = 16
    depth: int = 3


def ranked(run: Run, routes: Sequence[Route]) -> list[Route]:
    """These routes, the best first by all probes together; those that miss a question are left out."""
    found, wanted = results(run.ledger), set(routes)
    probes = seen_probes(found)
    rows = [row for row in complete(found, probes) if row.route in wanted]
    if not rows:
        raise SweepError("no route of the plan is left to go on with; give more windows")
    counts = [found.about.probes[name]["questions"] for name in probes]
    order = np.argsort(-gains_of(found, rows, probes, counts).mean(axis=0), kind="stable")
    return [rows[column].route for column in order]


def beam(run: Run, windows: Sequence[Window], how: Beam = Beam()) -> list[Route]:
    """Score the windows, then routes of two of them, then of three; returns all routes that were scored.

    A route of several windows is `blocks:` with the windows in rising order. All is in the ledger.
    """
    n = run.ledger.about.n_layer
    named: dict[Route, tuple[Window, ...]] = {repeated(window, n): (window,) for window in windows}
    own = Route.identity(n)
    full(run, [own, *named])
    best = ranked(run, list(named))
    pool = [named[route][0] for route in best[: how.pool]]
    alive, tried = best[: how.seeds], [own, *named]
    for _ in range(how.depth - 1):
        made = dict[Route, tuple[Window, ...]]()
        for route in alive:
            others = [window for window in pool if window not in named[route]][: how.expand]
            for window in others:
                parts = (*named[route], window)
                if joined := together(parts, n):
                    made[joined] = parts
        new = [route for route in made if route not in named]
        named |= {route: made[route] for route in new}
        if not new:
            break
        full(run, [own, *new])
        tried += new
        alive = ranked(run, new)[: how.width]
    return tried


def together(windows: Sequence[Window], n: int) -> Route | None:
    """The route of several windows, in rising order; None if they do not make one."""
    try:
        return Route.parse("blocks:" + ";".join(f"{i},{j}" for i, j in sorted(windows)), n)
    except RouteError:
        return None


def two_passes(run: Run) -> list[Route]:
    """Score a quarter of the model's blocks at a time, then windows of half that size where the first pass was best.

    For 32 blocks: windows of 8 with stride 4, then of 4 with stride 1, from the first to the last block of the best third of the
    first pass. Returns all routes that were scored.
    """
    n = run.ledger.about.n_layer
    size = max(2, n // 4)
    coarse = {repeated((i, i + size), n): (i, i + size) for i in range(0, n - size + 1, size // 2)}
    own = Route.identity(n)
    full(run, [own, *coarse])
    best = [coarse[route] for route in ranked(run, list(coarse))[: -(-len(coarse) // 3)]]
    first, last, half = min(i for i, _ in best), max(j for _, j in best), max(1, size // 2)
    fine = [repeated((i, i + half), n) for i in range(first, last - half + 1)]
    full(run, [own, *fine])
    return [own, *coarse, *fine]
