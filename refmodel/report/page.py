"""What a report says, as plain records: HTML, Markdown and pictures are made of these, and of nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

GOOD, NOTE, BAD = "good", "note", "bad"  # how a verdict or a line is marked


@dataclass(frozen=True)
class Series:
    """One curve: its name, and a value for each place; NaN where there is none."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Lines:
    """Curves over places that are in order.

    says   the picture in a sentence, for who does not see it
    x, y   what the axes are
    at     the name of each place
    kinds  the kind of each place, to mark them by shape; empty: all alike
    seams  places before which the order jumps
    bands  shaded stretches of places: first and last, and `band` says what they are
    log    the y axis is logarithmic; zeros are on its lowest line
    """

    title: str
    says: str
    x: str
    y: str
    at: Sequence[str]
    series: Sequence[Series]
    kinds: Sequence[str] = ()
    seams: Sequence[int] = ()
    bands: Sequence[tuple[int, int]] = ()
    band: str = ""
    log: bool = True


@dataclass(frozen=True)
class Heat:
    """A number for each row and column, as colours.

    values  [rows, columns]; NaN where there is none
    scale   what the numbers are
    log     colours are of logarithms; zeros have a colour of their own
    signed  0 is in the middle of the colours, red is above; only without `log`
    marked  (row, column) of a cell with a frame; None for none
    """

    title: str
    says: str
    y: str
    x: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    scale: str
    log: bool = True
    signed: bool = False
    marked: tuple[int, int] | None = None


@dataclass(frozen=True)
class Shares:
    """Parts of a whole for each place, one stacked on the other; each series holds fractions. Negative ones go below zero."""

    title: str
    says: str
    x: str
    y: str
    at: Sequence[str]
    series: Sequence[Series]


@dataclass(frozen=True)
class Points:
    """Points with intervals, each with a name.

    x, y       what the axes are
    xs, ys     the places of the points
    low, high  the ends of the interval in y
    front      the indices of the points that no other one beats, left to right
    """

    title: str
    says: str
    x: str
    y: str
    at: Sequence[str]
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    front: Sequence[int] = ()


Picture = Lines | Heat | Shares | Points


@dataclass(frozen=True)
class Line:
    """One line of a table.

    cells  one text for each column
    mark   GOOD, NOTE or BAD
    word   what it is filtered by
    inner  a table that it opens
    """

    cells: Sequence[str]
    mark: str = ""
    word: str = ""
    inner: "Table | None" = None


@dataclass(frozen=True)
class Table:
    """A table; its first column names the line.

    texts     columns that hold words; the others hold figures, and are right-aligned
    searched  it has a search field, and a choice of the lines' words
    brief     it also goes into Markdown
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    texts: frozenset[str] = frozenset()
    searched: bool = False
    brief: bool = False

    @property
    def words(self) -> list[str]:
        """What lines can be filtered by, in the order in which they occur."""
        return list(dict.fromkeys(line.word for line in self.lines if line.word))


@dataclass(frozen=True)
class Section:
    """A part of a report: some sentences, then pictures and tables."""

    title: str
    says: Sequence[str]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """A report.

    title    what was done
    verdict  the result in one sentence
    mark     GOOD, NOTE or BAD
    says     more sentences
    facts    what was computed from what: name -> value
    """

    title: str
    verdict: str
    mark: str
    says: Sequence[str]
    sections: Sequence[Section]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [picture for section in self.sections for picture in section.pictures]


def figure(value: float | None) -> str:
    """A number with two digits for a table: 0, 3.1e-07; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return "0" if value == 0 else f"{value:.1e}"


def extreme(at: Sequence[str], values: Sequence[float]) -> str:
    """A phrase with the largest of some values, and where it is."""
    known = [(value, place) for value, place in zip(values, at, strict=True) if not math.isnan(value)]
    if not known:
        return "no figures"
    value, place = max(known)
    return "0 everywhere" if value == 0 else f"largest {value:.1e}, at {place}"


def jumps(layers: Sequence[int]) -> list[int]:
    """The positions of a route whose block does not follow the one before it."""
    return [p for p in range(1, len(layers)) if layers[p] != layers[p - 1] + 1]


def block_names(layers: Sequence[int]) -> list[str]:
    """The name of each position of a route: its number, and the source block if that is another."""
    return [f"block {p}" if p == layer else f"block {layer} at {p}" for p, layer in enumerate(layers)]


def tokens_in_words(calls: Sequence[Sequence[int]]) -> str:
    """The token ids of calls as a fact: how many, in how many calls, and the first ones."""
    ids = [token for call in calls for token in call]
    shown = ", ".join(map(str, ids[:64])) + (", ..." if len(ids) > 64 else "")
    return f"{len(ids)} in {len(calls)} call{'s' * (len(calls) != 1)}: {shown}"
