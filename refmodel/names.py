"""llama.cpp's graph nodes -> taps. Which nodes are compared, and why the others are not, stands in golden/names/<arch>.txt.

A tap has the node's own name, `name-N`; `#k` counts the earlier nodes of that name in the same block. A node without a
name is called by its operation in lower case.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .errors import OracleError

NAMES = Path(__file__).parent / "golden" / "names"
UNNAMED = re.compile(r"(node|leaf)_\d+")
BLOCK = re.compile(r"(?<=[-_])(l?)(\d+)\b")


@dataclass(frozen=True)
class Line:
    """One line of a table: compared under `tap`, or left out for `reason`."""

    tap: str
    reason: str


@dataclass
class Namer:
    """Gives the nodes of one graph their taps, in the order in which they are computed.

    block   the block being computed; it ends with its l_out
    """

    table: dict[tuple[str, str], Line]
    block: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def name(self, op: str, name: str) -> tuple[str, str]:
        """(tap, reason) of the next node; one of them is empty. A node that the table does not know keeps its name as tap:
        ours has none of that name, so that the report shows it as missing."""
        plain = generic(name) or op.lower() + "-N"
        count = self.seen[plain]
        self.seen[plain] += 1
        key = f"{plain}#{count}" if count else plain
        line = self.table.get((op, key))
        block = self.block
        if plain == "l_out-N" and op == "ADD":
            self.block, self.seen = self.block + 1, Counter()
        if line is None:
            return concrete(key, block), ""
        return concrete(line.tap, block), line.reason


def generic(name: str) -> str:
    """A node's name with N for its block; empty for a node that has none."""
    stem = UNNAMED.sub("", name)
    return BLOCK.sub(r"\1N", stem) if stem.strip() else ""


def concrete(key: str, block: int) -> str:
    return re.sub(r"(-|_l)N\b", rf"\g<1>{block}", key)


def parse(text: str) -> dict[tuple[str, str], Line]:
    """Lines `OP  name  = [tap]` or `OP  name  ! reason`, columns two spaces apart; # at the start of a line is a comment."""
    table = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("# "):
            op, key, rest = re.split(r"\s{2,}", line.strip(), maxsplit=2)
            mark, words = rest[0], rest[1:].strip()
            table[op, key] = Line(words or key, "") if mark == "=" else Line("", words)
    return table


def table_for(arch: str) -> dict[tuple[str, str], Line]:
    path = NAMES / f"{arch}.txt"
    if not path.exists():
        raise OracleError(f"golden/names has no table of llama.cpp's nodes for architecture {arch!r}")
    return parse(path.read_text())
