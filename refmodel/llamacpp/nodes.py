"""The nodes that llama.cpp computes, by name and in order, and the tap that each of them is compared with.

golden/names/<architecture>.txt has a section [head], one for each kind of block, and one or more [tail ...]. A line is one of

    MUL_MAT    Qcur-N    = Qcur-N < MUL_MAT(...)     compared with this tap; `<`: its definition (graph.py), several with `or`
    RESHAPE    Qcur-N    ! same numbers as Qcur-N    not compared, and why
    ? GET_ROWS node      ! ...                       may be absent
    * VIEW     name      ! ...                       may be there any number of times
    |2 CONT    name      = name                      may be there instead of the two lines above it

N is the block's number, N+1 the next block's, `node` a node without a name. A tap has the node's name; `name-N#k` has k earlier
nodes of that name in its block, and `rms_norm-N#1` is the second nameless node of that operation. `name-N#bias` is the sum of a
product and a bias that not every file has; it does not count. node_variants.py has the tables of files that store matrices in
other ways.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OracleError
from ..machine.files import PACKAGE


class UnknownNode(OracleError):
    """A graph is not the table's."""


FOLDER = PACKAGE / "golden" / "names"
LINE = re.compile(
    r"(?:(?P<number>[?*])\s+|\|(?P<instead>\d+)\s+)?(?P<op>[A-Z0-9_]+)\s+(?P<name>\S.*?)\s+(?P<mark>[=!])\s+(?P<text>.+?)(?:\s+<\s+(?P<made>.+))?"
)


@dataclass(frozen=True)
class Entry:
    """One line of a table: exactly one of `tap` (compared) and `reason` (not compared) is not empty.

    op        ggml's operation
    name      the node's name, N for the block's number
    optional  may be absent
    repeats   may be there any number of times
    instead   how many lines before it it may replace
    made      the definitions of the tap, as graph.py has them; none where they were not recorded
    """

    op: str
    name: str
    tap: str
    reason: str
    optional: bool = False
    repeats: bool = False
    instead: int = 0  # of so many lines before it
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What becomes of one node of a stream: its tap, or the reason why it has none.

    more  what a trace says of it besides; nothing where the graph is the table's
    """

    tap: str
    reason: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """All sections of one architecture, in the file's order; those between head and tail are kinds of block."""

    architecture: str
    sections: Mapping[str, tuple[Entry, ...]]

    @property
    def blocks(self) -> list[str]:
        """The names of the sections that are kinds of block."""
        return [name for name in self.sections if name != "head" and not name.startswith("tail")]

    @property
    def embedding(self) -> str:
        """The tap that the first block reads."""
        return [entry.tap for entry in self.sections["head"] if entry.tap][-1]

    @property
    def tails(self) -> list[str]:
        """The names of the sections that may follow the last block."""
        return [name for name in self.sections if name.startswith("tail")]


def table(architecture: str) -> Table:
    """The table of an architecture. OracleError if there is none, or a line of it cannot be read."""
    path = FOLDER / f"{architecture}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.txt"))) or f"none, {FOLDER} is missing"
        raise OracleError(
            f"no table of llama.cpp's node names for architecture {architecture!r}; known: {known}; llama.cpp's graph of "
            "another architecture cannot be compared node by node; compare only its logits"
        )
    return Table(architecture, parse(path.read_text().splitlines(), path))


def parse(lines: Iterable[str], path: Path) -> dict[str, tuple[Entry, ...]]:
    """The sections of a table's lines, in order. OracleError, which names the line of `path`, for one that cannot be read."""
    sections: dict[str, list[Entry]] = {}
    here: list[Entry] = []
    for row, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            here = sections[line[1:-1]] = []
        elif match := LINE.fullmatch(line):
            tap, reason = (match["text"], "") if match["mark"] == "=" else ("", match["text"])
            number, instead = match["number"], int(match["instead"] or 0)
            made = tuple(match["made"].split(" or ")) if match["made"] else ()
            here.append(Entry(match["op"], match["name"], tap, reason, bool(number), number == "*", instead, made))
        else:
            raise OracleError(f"{path}:{row}: expected `OP name = tap` or `OP name ! reason`, found {line!r}; correct the line")
    return {name: tuple(entries) for name, entries in sections.items()}


def normalised(name: str, block: int) -> str:
    """A node's name without what changes from block to block and from graph to graph: Kcur-3 -> Kcur-N, node_57 -> node.

    In block 3 Kcur-4 is Kcur-N+1: llama.cpp may read a state before the block that it belongs to.
    """
    name = re.sub(r"\bnode_\d+", "node", name)
    for number, letter in ((block, "N"), (block + 1, "N+1")):
        name = re.sub(rf"(?:(?<=-)|(?<=_l)|(?<=blk\.)){number}(?!\d)", letter, name)
    return name.strip()


@dataclass(frozen=True, order=True)
class Place:
    """A line of a section; the number after its last line when the section is done."""

    section: str
    line: int


class Aligner:
    """Walks a stream of nodes along a table, strictly in order. UnknownNode for a node that the table does not have there.

    block   number of the block being computed; -1 in the head
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.begin()

    def begin(self, first: int = 0) -> None:
        """Expect the first node of a graph whose first block has number `first`."""
        self.block = first - 1
        self._next = {Place("head", 0)}  # where we may be: kinds of block differ only after some nodes

    def feed(self, op: str, name: str) -> Verdict:
        """The verdict on the next node. UnknownNode if no section has it here; OracleError if two sections disagree on it."""
        found = self._matches(op, name)
        if not found and any(self._is_done(place) for place in self._next):
            self.block += 1
            self._next |= {Place(section, 0) for section in (*self.table.blocks, *self.table.tails)}
            found = self._matches(op, name)
        if not found:
            raise UnknownNode(self._unknown(f"{op} {name!r}"))
        self._next = {Place(place.section, place.line + (not self._entry(place).repeats)) for place in found}
        verdicts = {(self._entry(place).tap, self._entry(place).reason) for place in found}
        if len(verdicts) > 1:
            file = f"golden/names/{self.table.architecture}.txt"
            both = " and ".join(sorted(tap or reason for tap, reason in verdicts))
            raise OracleError(f"{file} disagrees with itself on {op} {name!r}: {both}; give its lines one meaning")
        tap, reason = (re.sub(r"(?<=-)N\b", str(self.block), text) for text in verdicts.pop())
        return Verdict(tap, reason)

    def end(self) -> None:
        """Check that the graph is complete. UnknownNode if the table has more."""
        if not any(place.section in self.table.tails and self._is_done(place) for place in self._next):
            raise UnknownNode(self._unknown("nothing more"))

    @property
    def behind(self) -> list[Place]:
        """Where the walk may be: behind the lines that the last node may have been; a repeated line is not passed."""
        return sorted(self._next)

    def _matches(self, op: str, name: str) -> list[Place]:
        wanted = op, normalised(name, self.block)
        return [p for p in self._reachable() if (self._entry(p).op, self._entry(p).name) == wanted]

    def _reachable(self) -> list[Place]:
        """The lines that may come next: behind each place up to the first that is not optional, and what may be there instead."""
        places: set[Place] = set()
        for start in self._next:
            entries = self.table.sections[start.section]
            for line, entry in enumerate(entries[start.line :], start.line):
                if entry.instead:
                    continue  # reached from the first line that it replaces
                others = (i for i, other in enumerate(entries) if other.instead and i - other.instead == line)
                places |= {Place(start.section, i) for i in (line, *others)}
                if not entry.optional:
                    break
        return sorted(places)

    def _entry(self, place: Place) -> Entry:
        return self.table.sections[place.section][place.line]

    def _is_done(self, place: Place) -> bool:
        return all(entry.optional or entry.instead for entry in self.table.sections[place.section][place.line :])

    def _unknown(self, found: str) -> str:
        expected = [f"{self._entry(p).op} {self._entry(p).name} [{p.section}]" for p in self._reachable()]
        where = f"block {self.block}" if self.block >= 0 else "the head"
        return (
            f"llama.cpp's graph has {found} in {where}, where golden/names/{self.table.architecture}.txt "
            f"has {' or '.join(expected) or 'nothing more'}; give a llama.cpp of a known build, or extend that table"
        )
