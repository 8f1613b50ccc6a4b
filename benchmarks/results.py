"""What was measured: spreads, ratios of pairs, whether a goal is met; saved as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
SAME = ("processor", "threads", "target", "versions")  # of all rows of a report
ENOUGH = 20  # pairs from which a median counts


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float] | NDArray[np.float64]) -> "Spread":
        """Those of some values."""
        low, median, high = np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75])
        return Spread(float(low), float(median), float(high))


@dataclass(frozen=True)
class Goal:
    """The value that a number must reach, and the one that it should (aim); with `most` a number must not be larger."""

    must: float
    aim: float | None = None
    most: bool = False

    def reached(self, value: float) -> str:
        """aim, must or missed."""

        def holds(wanted: float) -> bool:
            return value <= wanted if self.most else value >= wanted

        if self.aim is not None and holds(self.aim):
            return "aim"
        return "must" if holds(self.must) else "missed"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    group   what it belongs to, a word of the command line; `name` tells rows of a group apart
    beside  the other side, as it ran; empty if there is none
    unit    of `ours` and `theirs`; speeds where it has a / in it, else times or sizes
    ratio   what the goal is about: our speed over theirs, pair by pair; or the number itself
    n       pairs, or runs
    missing why there is no number
    others  share of the machine that other processes had just before
    """

    group: str
    name: str
    goal: Goal | None = None
    beside: str = ""
    unit: str = ""
    ours: Spread | None = None
    theirs: Spread | None = None
    ratio: Spread | None = None
    n: int = 0
    note: str = ""
    missing: str = ""
    others: float = 0.0

    @property
    def verdict(self) -> str:
        """aim, must or missed; absent without a number, none without a goal, few with fewer pairs than ENOUGH."""
        if self.ratio is None:
            return "absent"
        if self.goal is None:
            return "none"
        if self.beside and self.n < ENOUGH:
            return "few"
        return self.goal.reached(self.ratio.median)


def paired(ours: Sequence[float], theirs: Sequence[float], work: float = 1.0) -> dict[str, Any]:
    """The numbers of a row from the seconds of both sides, turn by turn. ValueError if the numbers of turns differ.

    work  what a turn does, in units: the speeds are work per second

    The ratio is that of each pair's speeds, ours over theirs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} turns of ours, {len(theirs)} of theirs; expected pairs; measure both equally often")
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return {
        "ours": Spread.of(work / mine),
        "theirs": Spread.of(work / other),
        "ratio": Spread.of(other / mine),
        "n": len(ours),
    }


def alone(values: Sequence[float]) -> dict[str, Any]:
    """The numbers of a row that has no other side."""
    return {"ours": Spread.of(values), "ratio": Spread.of(values), "n": len(values)}


@dataclass
class Report:
    """A machine and its rows; a row replaces the one of the same group and name."""

    header: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def begin(self, header: dict[str, Any]) -> None:
        """Begin a new run. SystemExit if there are rows of another machine or other programs: a report is about one machine."""
        if self.rows and (other := [key for key in SAME if self.header.get(key) != header.get(key)]):
            raise SystemExit(
                f"the rows that are kept were measured with another {' and '.join(other)}: name a new file with --json"
            )
        self.header = header

    def add(self, row: Row) -> None:
        """Add a row, or replace the one of the same group and name."""
        for i, known in enumerate(self.rows):
            if (known.group, known.name) == (row.group, row.name):
                self.rows[i] = row
                return
        self.rows.append(row)

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
        text = json.dumps({"schema": SCHEMA, "header": self.header, "rows": rows}, indent=1)
        path.write_text(text + "\n")

    @staticmethod
    def load(path: Path) -> "Report":
        """A saved report. SystemExit for a file of another schema."""
        found = json.loads(path.read_text())
        if found.get("schema") != SCHEMA:
            raise SystemExit(
                f"{path}: has schema {found.get('schema')}; this program reads and writes {SCHEMA}; name a new file with --json"
            )
        return Report(found["header"], [row_of(row) for row in found["rows"]])


def row_of(saved: Mapping[str, Any]) -> Row:
    """A row from its JSON object."""
    values = {key: value for key, value in saved.items() if key != "verdict"}
    for name in ("ours", "theirs", "ratio"):
        values[name] = values[name] and Spread(**values[name])
    values["goal"] = values["goal"] and Goal(**values["goal"])
    return Row(**values)
