"""What a sweep found, as a report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import F
from .page import BAD, GOOD, NOTE, Heat, Line, Page, Points, Section, Series, Shares, Table, extreme
from .sweep import gain

if TYPE_CHECKING:
    from ..sweep.results import Result, Results
    from ..sweep.verdict import Verdict

MARKS = {"winner": GOOD, "luck": NOTE, "none": NOTE}


def sweep_page(found: "Results", rows: "Sequence[Result]", by: str) -> Page:
    """The page of a ledger: verdicts, a map of windows, what routes gain for their cost, and every route.

    rows  the routes of the table
    by    the probe that sorts it
    """
    from ..sweep.verdict import verdicts

    judged = verdicts(found)
    verdict, mark, says = headline(judged)
    sections = [section for probe in found.about.probes for section in (of_probe(found, probe),) if section.pictures]
    sections.append(Section("Routes", ["A gain above 0 is better, whichever way the probe counts."], [], [routes(found, rows, by)]))
    facts = {
        "model": f"{found.about.name}, {found.about.n_layer} blocks",
        "sha256 of the model": found.about.model,
        "numerics": found.about.numerics,
        "probes": "; ".join(f"{name}: {facts['questions']} questions" for name, facts in found.about.probes.items()),
        "routes with an answer": str(len(found.rows)),
    }
    return Page(f"Sweep of {found.about.name}", verdict, mark, says, sections, facts)


def headline(judged: "Sequence[Verdict]") -> tuple[str, str, list[str]]:
    """The verdict in a sentence, its mark, and the other sentences."""
    if not judged:
        return "NOT DECIDED: no route has met all questions yet", NOTE, []
    sentences = [sentence for one in judged for sentence in one.sentences()]
    verdict = judged[-1].sentences()[-1]
    return verdict, MARKS.get(judged[-1].word, BAD), [sentence for sentence in sentences if sentence != verdict]


def of_probe(found: "Results", probe: str) -> Section:
    """The pictures of one probe: the gain of each window, and of each route for its cost with its interval."""
    pictures: list[Heat | Points | Shares] = []
    n, gains = found.about.n_layer, gain_map(found, probe)
    if not np.isnan(gains).all():
        starts, ends = [f"window from {i}" for i in range(n)], [f"to before {j + 1}" for j in range(n)]
        flat = [f"blocks:{i},{j + 1}" for i in range(n) for j in range(n)]
        known = {name: value for name, value in zip(flat, gains.ravel().tolist()) if not np.isnan(value)}
        best = max(known, key=lambda name: known[name])
        says = f"The window from block i to before block j runs twice. The best is {best}, {known[best]:+.4g}; it has a frame."
        title = f"Gain of each window by {probe}"
        place = np.unravel_index(int(np.nanargmax(gains)), gains.shape)
        heat = Heat(
            title, says, "i, the first block", "j, the end", starts, ends, gains.tolist(), "mean gain; unrouted 0", False, True,
            (int(place[0]), int(place[1])),
        )  # fmt: skip
        pictures += [heat, *singles(gains, probe)]
    pictures += [points] if (points := paid(found, probe)) else []
    return Section(f"By {probe}", [], pictures)


def gain_map(found: "Results", probe: str) -> F:
    """The mean gain of every window, [N, N]: row i, column j - 1 of the window i, j; NaN where it was not computed."""
    n = found.about.n_layer
    gains = np.full((n, n), np.nan)
    for row in found.rows:
        if not row.route.is_identity and (window := row.window) and len(found.gains(row, probe)):
            gains[window[0], window[1] - 1] = gain(found, row, probe)
    return gains


def singles(gains: F, probe: str) -> list[Shares]:
    """The bars of the single blocks, if some were repeated: from the gains [N, N] of all windows."""
    each = np.diagonal(gains)
    if np.isnan(each).all():
        return []
    at = [f"block {i}" for i in range(len(each))]
    says = f"The gain of each block that runs twice: {extreme(at, each.tolist())}."
    return [Shares(f"Single blocks by {probe}", says, "block", "mean gain", at, [Series("gain", each.tolist())])]


def paid(found: "Results", probe: str) -> Points | None:
    """What routes gain for what they cost, with intervals; None if no route met all questions of the probe."""
    from ..sweep.score import intervals
    from ..sweep.verdict import complete, complete_baseline, gains_of

    rows = complete(found, [probe])
    if not rows or not complete_baseline(found, [probe]):
        return None
    gains = gains_of(found, rows, [probe], [found.about.probes[probe]["questions"]])
    means, sides = gains.mean(axis=0), intervals(gains)
    sides = np.where(np.isfinite(sides), sides, means[:, None])
    cost = [float(len(row.route.layers) - found.about.n_layer) for row in rows]
    names = [row.route.canonical for row in rows]
    says = f"Each point is a route, its line the 95 % interval. Of all, {extreme(names, means.tolist())}."
    front = not_beaten(cost, means.tolist())
    ends = sides[:, 0].tolist(), sides[:, 1].tolist()
    return Points(
        f"Gain for cost by {probe}", says, "blocks more than the model has", "mean gain", names, cost, means.tolist(), *ends, front
    )


def not_beaten(cost: Sequence[float], value: Sequence[float]) -> list[int]:
    """The indices of those than which no cheaper or equally dear one has a larger value, the cheapest first."""
    front: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], -value[i])):
        if not front or value[i] > value[front[-1]]:
            front.append(i)
    return front


def routes(found: "Results", rows: "Sequence[Result]", by: str) -> Table:
    """Every route with its scores and gains; a line opens its blocks."""
    names = list(found.about.probes)
    ordered = sorted(rows, key=lambda row: (not row.route.is_identity, -gain(found, row, by)))
    lines = []
    for row in ordered:
        means, gains = [row.mean(name) for name in names], [gain(found, row, name) for name in names]
        cells = [row.route.canonical, str(len(row.route.layers)), *("–" if mean is None else f"{mean:.4f}" for mean in means)]
        cells += ["–" if row.route.is_identity or np.isinf(value) else f"{value:+.4f}" for value in gains]
        word = "unrouted" if row.route.is_identity else "better" if gain(found, row, by) > 0 else "not better"
        order = Line(["blocks in order", " ".join(map(str, row.route.layers))])
        note = [Line(["note", row.note])] if row.note else []
        inner = Table(row.route.canonical, ["of the route", "value"], [order, *note], frozenset({"value"}))
        lines.append(Line([*cells, str(row.n), word], NOTE if row.note else "", word, inner))
    columns = ["route", "blocks", *names, *(f"{name} gain" for name in names), "answers", f"by {by}"]
    return Table("Routes", columns, lines, frozenset({f"by {by}"}), searched=True, brief=True)
