"""What a sweep proves: whether its best route is more than the luck of the best of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from ..arrays import F
from ..model.route import Route
from .results import Result, Results
from .score import LEVEL, Standing, grouped, standing, together
from .windows import every_window, repeated

FINALISTS = 5  # routes that meet the held-out questions
EQUALS = 8  # random windows of the winner's size that meet them too
ALL = "all probes together"


@dataclass(frozen=True)
class Verdict:
    """The best route by one probe, or by all together.

    probe     its name, or ALL
    route     the best route
    standing  whether that is luck
    questions  on how many questions it was chosen
    group     questions that count as one in `standing`
    place     its place among windows of its size, and how many they are, itself included; None if there are no others
    """

    probe: str
    route: Route
    standing: Standing
    questions: int
    group: int
    place: tuple[int, int] | None

    @property
    def word(self) -> str:
        """`winner`, `luck`, or `none` if no route has a better mean than the unrouted model."""
        if self.standing.gain <= 0:
            return "none"
        return "winner" if self.standing.wins else "luck"

    def sentences(self) -> list[str]:
        """The verdict in a few lines."""
        s, (low, high) = self.standing, self.standing.interval
        gain = f"gains {s.gain:+.4g} (95 % interval {low:+.4g} to {high:+.4g}) on {self.questions} questions"
        lines = [f"{self.probe}: the best of {s.tried} routes is {self.route.canonical}; it {gain}"]
        if self.word == "none":
            return [*lines, "NO WINNER: no route scores better than the unrouted model"]
        lines.append(
            f"the best of so many gains {s.luck:+.4g} by luck once in {round(1 / LEVEL)} sweeps; corrected p = {s.corrected:.3g}"
        )
        if s.held_out is None:
            lines.append("there are no held-out questions; --held-out adds some")
        else:
            lines.append(
                f"on held-out questions, which had no part in choosing it, it gains {s.held_out[0]:+.4g}, p = {s.held_out[1]:.3g}"
            )
        if self.place:
            lines.append(f"among {self.place[1]} windows of its size it is number {self.place[0]}")
        if self.word == "winner":
            return [*lines, f"WINNER: {self.route.canonical} is better than the unrouted model"]
        more = "no number of questions" if np.isinf(s.needed) else f"about {s.needed * self.group:,.0f} questions"
        return [*lines, f"LUCK: not more than the best of so many gains by chance; {more} would settle a gain of this size"]

    def as_json(self) -> dict[str, object]:
        """For --json."""
        s = self.standing
        held = None if s.held_out is None else {"gain": s.held_out[0], "p": s.held_out[1]}
        found = {"gain": s.gain, "interval": list(s.interval), "p_corrected": s.corrected, "luck": s.luck, "tried": s.tried}
        found |= {"held_out": held, "questions": self.questions, "questions_needed": s.needed * self.group}
        return {"probe": self.probe, "verdict": self.word, "route": self.route.canonical, **found, "place": self.place}


def gains_of(found: Results, rows: Sequence[Result], probes: Sequence[str], questions: Sequence[int]) -> F:
    """The gains of these routes on the first questions of each probe, the probes together: [groups of questions, routes].

    questions  how many of each probe
    """
    by_probe = []
    for name, count in zip(probes, questions, strict=True):
        columns = [found.gains(row, name)[:count] for row in rows]
        by_probe.append(grouped(np.stack(columns, axis=1), found.about.probes[name]["group"]))
    return by_probe[0] if len(by_probe) == 1 else together(by_probe)


def seen_probes(found: Results) -> list[str]:
    """The probes that routes are chosen by: those that are no held-out half of another."""
    return [name for name, facts in found.about.probes.items() if not facts["held_out_of"]]


def complete(found: Results, probes: Sequence[str]) -> list[Result]:
    """The routes, without the unrouted model, that met all questions of these probes."""
    wanted = {name: found.about.probes[name]["questions"] for name in probes}
    return [
        row for row in found.rows
        if not row.route.is_identity and all(len(row.scores.get(name, [])) == n for name, n in wanted.items())
    ]  # fmt: skip


def verdicts(found: Results) -> list[Verdict]:
    """A verdict for each probe, and for all together if there are several; none where no route met all questions."""
    probes = seen_probes(found)
    ways = [([name], name) for name in probes] + ([(probes, ALL)] if len(probes) > 1 else [])
    return [verdict for names, title in ways if (verdict := judged(found, names, title))]


def judged(found: Results, probes: Sequence[str], title: str) -> Verdict | None:
    """The verdict by these probes together; None if no route met all of their questions."""
    rows = complete(found, probes)
    if not rows or len(complete_baseline(found, probes)) != 1:
        return None
    counts = [found.about.probes[name]["questions"] for name in probes]
    gains = gains_of(found, rows, probes, counts)
    best = rows[int(np.argmax(gains.mean(axis=0)))]
    tried = sum(not row.route.is_identity for row in found.rows)
    held = [name for name, facts in found.about.probes.items() if facts["held_out_of"] in probes]
    other = held_out_gains(found, rows, best, held)
    group = found.about.probes[probes[0]]["group"] if len(probes) == 1 else 1
    return Verdict(title, best.route, standing(gains, other, tried), sum(counts), group, place(found, best, rows, gains))


def held_out_gains(found: Results, rows: Sequence[Result], best: Result, held: Sequence[str]) -> F | None:
    """The gains of all rows on held-out questions, [groups, rows], 0 of rows that did not meet them; None if the best did not."""
    wanted = {name: found.about.probes[name]["questions"] for name in held}
    met = [row for row in rows if all(len(row.scores.get(name, [])) == n for name, n in wanted.items())]
    if not held or best not in met or not complete_baseline(found, held):
        return None
    some = gains_of(found, met, held, list(wanted.values()))
    columns = {id(row): column for column, row in enumerate(met)}
    return np.stack([some[:, columns[id(row)]] if id(row) in columns else np.zeros(len(some)) for row in rows], axis=1)


def complete_baseline(found: Results, probes: Sequence[str]) -> list[Result]:
    """The unrouted model, in a list, if it met all questions of these probes."""
    wanted = {name: found.about.probes[name]["questions"] for name in probes}
    return [row for row in found.rows if row.route.is_identity and all(len(row.scores.get(n, [])) == q for n, q in wanted.items())]


def place(found: Results, best: Result, rows: Sequence[Result], gains: F) -> tuple[int, int] | None:
    """The place of a window among those of its size, and how many they are; None for another route, or without others."""
    if not best.window:
        return None
    size = best.window[1] - best.window[0]
    means = gains.mean(axis=0)
    alike = [float(mean) for row, mean in zip(rows, means) if row.window and row.window[1] - row.window[0] == size]
    if len(alike) < 2:
        return None
    return 1 + sum(mean > float(means[rows.index(best)]) for mean in alike), len(alike)


def finalists(found: Results) -> list[Route]:
    """The routes that meet the held-out questions: the model's own order, the best few by all probes, and random windows of the
    size of the best one, drawn with the model's sha256 as the seed. Empty if no route met all questions."""
    probes = seen_probes(found)
    rows = complete(found, probes)
    if not rows:
        return []
    counts = [found.about.probes[name]["questions"] for name in probes]
    means = gains_of(found, rows, probes, counts).mean(axis=0)
    best = [rows[column] for column in np.argsort(-means, kind="stable")[:FINALISTS]]
    chosen = [row.route for row in best]
    n_layer = found.about.n_layer
    if window := best[0].window:
        size = window[1] - window[0]
        alike = [repeated(w, n_layer) for w in every_window(n_layer) if w[1] - w[0] == size]
        others = [route for route in alike if route not in chosen]
        chosen += Random(found.about.model).sample(others, min(EQUALS, len(others)))
    return [Route.identity(n_layer), *chosen]
