"""What a ledger holds, by route: all that statistics, tables and exports read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..arrays import F
from ..errors import SweepError
from ..model.route import Route
from ..notebook import html_of
from .ledger import Ledger, Sweep
from .windows import Window, window_of


@dataclass(eq=False)
class Result:
    """One route and what was found for it.

    route    the route
    note     what a reader should know of it; empty for nothing
    scores   probe -> the scores of its first questions
    texts    probe -> what was answered to them; empty where nothing is written
    seconds  that computing it took, over all probes
    at       when it was last written, in UTC
    """

    route: Route
    note: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    at: str = ""

    @property
    def window(self) -> Window | None:
        """(i, j) of a route that repeats one window, (0, 0) of the model's own order, None of any other route."""
        return window_of(self.route)

    @property
    def n(self) -> int:
        """How many questions were answered, over all probes."""
        return sum(map(len, self.scores.values()))

    def mean(self, probe: str) -> float | None:
        """The mean score of a probe over the questions that were answered; None without any."""
        scores = self.scores.get(probe)
        return float(np.mean(scores)) if scores else None


@dataclass(frozen=True)
class Results:
    """All routes of a ledger that have an answer, in the order in which they were planned.

    about  what the ledger is about
    rows   one for each route
    """

    about: Sweep
    rows: Sequence[Result]

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)

    @cached_property
    def baseline(self) -> Result:
        """The model in its own order. SweepError if it was not computed yet."""
        found = next((row for row in self.rows if row.route.is_identity), None)
        if found is None:
            raise SweepError("the ledger has no result of the unrouted model yet; run the sweep until it has")
        return found

    def lower(self, probe: str) -> bool:
        """Whether a lower score of this probe is better."""
        return bool(self.about.probes[probe]["better"] == "lower")

    def gains(self, row: Result, probe: str) -> F:
        """By how much each question is better than without the route, float64 [questions that both have]; above 0 is better."""
        theirs = self.baseline.scores.get(probe, [])
        n = min(len(row.scores.get(probe, [])), len(theirs))
        difference = np.subtract(row.scores.get(probe, [])[:n], theirs[:n])
        return -difference if self.lower(probe) else difference


def results(ledger: Ledger) -> Results:
    """Read a ledger. Of each probe only the questions without a gap from the first one on count."""
    n_layer = ledger.about.n_layer
    rows = {row["id"]: Result(Route.of(row["layers"], n_layer), row["note"]) for row in ledger.routes()}
    for answer in ledger.answers():
        row, scores = rows[answer["route"]], answer["scores"]
        known = row.scores.setdefault(answer["probe"], [])
        if answer["first"] == len(known):
            known += scores
            row.texts.setdefault(answer["probe"], []).extend(answer["texts"])
        row.seconds += answer["seconds"]
        row.at = max(row.at, answer["at"])
    return Results(ledger.about, [row for row in rows.values() if row.at])


def chosen(
    found: Results,
    size: int = 0,
    block: int | None = None,
    better: bool = False,
    loadable: bool = False,
    top: int = 0,
    by: str = "",
) -> list[Result]:
    """The rows that pass all filters; the unrouted model always does.

    size      only windows of that many blocks
    block     only routes that run this block more than once
    better    only those whose mean gain is above zero, by probe `by`
    loadable  only those without a note
    top       at most this many, those with the largest mean gain by `by`
    """
    rows: Iterable[Result] = (row for row in found.rows if not row.route.is_identity)
    if size:
        rows = (row for row in rows if (w := row.window) and w[1] - w[0] == size)
    if block is not None:
        rows = (row for row in rows if row.route.layers.count(block) > 1)
    if loadable:
        rows = (row for row in rows if not row.note)
    kept = list(rows)
    if better or top:
        gain = {id(row): float(np.mean(g)) if len(g := found.gains(row, by)) else -np.inf for row in kept}
        kept = [row for row in kept if not better or gain[id(row)] > 0]
        kept = sorted(kept, key=lambda row: -gain[id(row)])[: top or None]
    return [row for row in found.rows if row.route.is_identity] + kept
