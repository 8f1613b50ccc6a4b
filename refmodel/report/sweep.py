"""What a sweep found, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .tables import plain_table

if TYPE_CHECKING:
    from ..sweep.results import Result, Results
    from ..sweep.trial import Trial
    from ..sweep.verdict import Verdict

MOST = 12  # routes that are shown unless filters choose


def table(console: Console, found: "Results", rows: "Sequence[Result]", by: str, full: bool) -> None:
    """Print routes with their scores, the unrouted model first, then the best by probe `by`.

    full  show all of them
    """
    names = list(found.about.probes)
    out = plain_table("route", "blocks", *names, *(f"{name} gain" for name in names), "n")
    base = next((row for row in rows if row.route.is_identity), None)
    others = sorted((row for row in rows if row is not base), key=lambda row: -gain(found, row, by))
    shown = others if full else others[:MOST]
    for row in [*([base] if base else []), *shown]:
        means = [row.mean(name) for name in names]
        gains = [gain(found, row, name) for name in names]
        cells = ["-" if mean is None else f"{mean:.4f}" for mean in means]
        cells += ["" if row is base else f"{value:+.4f}" for value in gains]
        out.add_row(("* " if row.note else "") + row.route.canonical, str(len(row.route.layers)), *cells, str(row.n))
    console.print(out)
    if len(shown) < len(others):
        console.print(f"the best {len(shown)} of {len(others)} routes by {by}; --top 0 with a filter, or --jsonl, shows more")
    if notes := sorted({row.note for row in shown if row.note}):
        console.print(
            f"* marked: {notes[0]}" + (f" (and {len(notes) - 1} more reasons; --jsonl)" if len(notes) > 1 else ""), markup=False
        )


def gain(found: "Results", row: "Result", probe: str) -> float:
    """The mean gain of a route over the unrouted model; minus infinity without an answer."""
    gains = found.gains(row, probe)
    return float(gains.mean()) if len(gains) else float("-inf")


def verdicts(console: Console, found: "Sequence[Verdict]") -> None:
    """Print each verdict, its word last."""
    for verdict in found:
        for line in verdict.sentences():
            console.print(line, markup=False, soft_wrap=True)


def rungs(console: Console, figures: Mapping[str, Any]) -> None:
    """Print how a race went: its rungs, and what it saved."""
    out = plain_table("rung", "routes", "questions", "stay", "the best stays")
    for number, rung in enumerate(figures["rungs"], 1):
        cells = [str(rung[name]) for name in ("routes", "questions", "stay")]
        out.add_row(str(number), *cells, f"{100 * rung['sure']:.1f} %")
    console.print(out)
    all_of_them = figures["rungs"][0]["routes"] * figures["rungs"][-1]["questions"]
    console.print(
        f"{figures['asked']:,} answers instead of {all_of_them:,}; the best route of all stays in {100 * figures['sure']:.0f} % of "
        "resamples of the questions",
        soft_wrap=True,
    )


TRIALS = {
    "survives": "SURVIVES: the gain is there in the second file, too",
    "lost": "LOST: in the second file the route is worse than the unrouted model",
    "not settled": "NOT SETTLED: in the second file the gain is not more than luck; more questions would settle it",
    "none": "NOTHING TO TRY: the first file has no route that is better than the unrouted model",
}


def trials(console: Console, found: "Sequence[Trial]") -> None:
    """Print each trial, its word last."""
    for one in found:
        console.print(f"{one.probe}: the best of {one.tried} routes in the first file is {one.route.canonical}", soft_wrap=True)
        for name, (gain, low, high) in (("first", one.first), ("second", one.second)):
            console.print(f"it gains {gain:+.4g} in the {name} file (95 % interval {low:+.4g} to {high:+.4g})", soft_wrap=True)
        alike = "" if one.correlation is None else f"; all gains agree by rank with a correlation of {one.correlation:.2f}"
        console.print(f"in the second file it is number {one.place}, p = {one.p:.3g}{alike}", soft_wrap=True)
        console.print(TRIALS[one.word], soft_wrap=True)


def trial_json(one: "Trial") -> dict[str, Any]:
    """The same for --json."""
    return asdict(one) | {"route": one.route.canonical, "verdict": one.word}
