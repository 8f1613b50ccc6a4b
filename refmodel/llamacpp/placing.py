"""The nodes of a graph that is not the table's: what they are is found from operations and sources, not from their order.

A version may name nodes otherwise, fuse or split them, or compute something that no table has. A node whose definition (graph.py)
is a line's has that line's tap, whatever its name. One that only has the name, the operation and no source that speaks against it
has the tap too, but is not judged: others start from its numbers, and from there all is found again. What is left is listed.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .graph import MANY, UNKNOWN, Definitions, Node, keeps_order, of_block
from .nodes import Entry, Table, UnknownNode, Verdict, normalised

COPIES = {"VIEW", "CPY", "DUP"}
STATE = re.compile(r"\bcache_[rs]_l\d+")
NUMBER = re.compile(r"(?:-|_l|\bblk\.)(\d+)(?![\w])|(?:-|_l|\bblk\.)(\d+)(?=[.#@])")


class Placing:
    """The nodes of one call, and their places in a table.

    entries  a root -> the line that it is, and the number of its block
    """

    def __init__(self, nodes: Sequence[Node], table: Table) -> None:
        self.nodes, self.table, self.graph = nodes, table, Definitions(nodes)
        self.members = defaultdict[int, list[int]](list)
        for i, root in enumerate(self.graph.roots):
            self.members[root].append(i)
        self.sections = sections_of(nodes, table)
        self.last = max(self.sections)
        self.rows = rows_of(table)
        self.lines = {block: self.lines_of(sections) for block, sections in self.sections.items()}
        self.entries: dict[int, tuple[Entry, int]] = {}
        while self.place(self.defined) or self.place(self.called):
            pass

    def place(self, options: Any) -> bool:
        """Give every root its tap for which `options` has one only, and which is no other's. Returns whether there was any."""
        before = len(self.entries)
        for root in self.members:
            found = (
                {}
                if root in self.entries or 0 in self.nodes[root]["ne"]
                else {tap_of(entry, block): (entry, block) for entry, block in options(root)}
            )
            named = {tap: line for tap, line in found.items() if self.is_called(root, *line)}
            choice = named if len(found) > 1 or MANY in self.graph.of(root) else found  # a part of a sum has its words, too
            if len(choice) == 1 and not set(choice) & set(self.graph.taps.values()):
                ((tap, self.entries[root]),) = choice.items()
                self.graph.place(root, tap)
        return len(self.entries) > before

    def defined(self, root: int) -> Iterator[tuple[Entry, int]]:
        """The lines that have a root's definition."""
        made = self.graph.of(root)
        for block in self.blocks(made, root) if made else ():
            words = self.words(made, block)
            yield from ((entry, block) for entry in self.lines[block] if words in entry.made)

    def called(self, root: int) -> Iterator[tuple[Entry, int]]:
        """The lines that have the name and the operation of a root, and no source that speaks against it."""
        op, made = self.nodes[root]["op"], self.graph.of(root)
        for block in self.blocks("", root):
            words = known_words(self.words(made, block))
            for entry in self.lines[block]:
                fits = (text for text in entry.made if text.startswith(f"{op}(") and words <= known_words(text))
                if self.is_called(root, entry, block) and any(fits):
                    yield entry, block

    def is_called(self, root: int, entry: Entry, block: int) -> bool:
        """Whether a line's name is that of a root, or of a node that shows its numbers."""
        names = {normalised(self.nodes[i]["name"], block) for i in self.members[root]}
        return entry.name != "node" and entry.name in names

    def blocks(self, made: str, root: int) -> list[int]:
        """The numbers of the blocks that a root may be of; the last one is for what is of none."""
        texts = [made, *(self.nodes[i]["name"] for i in self.members[root])]
        numbers = {int(a or b) for text in texts for a, b in NUMBER.findall(text)}
        numbers |= {int(number) + 1 for number in re.findall(r"\bl_out-(\d+)", made)} | {0}
        return sorted(numbers & set(self.sections) | {self.last})

    def lines_of(self, sections: Iterable[str]) -> list[Entry]:
        """The lines of these sections that have a tap and definitions."""
        found = (entry for section in sections for entry in self.table.sections[section] if entry.tap and entry.made)
        return [replace(entry, made=tuple(plain(text, self.rows) for text in entry.made)) for entry in found]

    def words(self, made: str, block: int) -> str:
        """A definition as the lines of a block have it; a head that is the embedding is the head."""
        made = re.sub(r"\bMUL_MAT\(token_embd\.weight\b", "MUL_MAT(output.weight", made)
        return plain(of_block(made, block, self.table.embedding), self.rows)

    def verdicts(self) -> list[Verdict]:
        """What becomes of each node, in order."""
        holders = {self.holder(root): root for root in self.entries}
        return [self.holding(holders[i]) if i in holders else self.left_out(i) for i in range(len(self.nodes))]

    def holder(self, root: int) -> int:
        """The node that shows a root's numbers as the line does, in its shape; the root itself if none has the line's name."""
        entry, block = self.entries[root]
        named = (
            i
            for i in self.members[root]
            if (self.nodes[i]["op"], normalised(self.nodes[i]["name"], block)) == (entry.op, entry.name)
        )
        return next(named, root)

    def holding(self, root: int) -> Verdict:
        """The verdict on the node that has a root's tap: it is judged if all that it starts from has a place.

        What is read from a state of earlier calls is judged if what is written there has a line's definition, too: a version may
        keep it in another order.
        """
        entry, block = self.entries[root]
        made, lines = self.graph.of(root), {text for line in self.lines[block] for text in line.made}
        written = (self.graph.roots[i] for state in STATE.findall(made) for i in self.graph.written(state))
        kept = {self.words(self.graph.of(writer), block) for writer in written}
        judged = self.words(made, block) in entry.made and kept <= lines
        return Verdict(self.graph.taps[root], "", {"judged": judged, "starts": sorted(self.graph.starts(root))})

    def left_out(self, i: int) -> Verdict:
        """The verdict on a node without a tap: why."""
        node, root = self.nodes[i], self.graph.roots[i]
        if 0 in node["ne"]:
            return Verdict("", "empty")
        if root in self.entries:
            return Verdict("", f"same numbers as {self.graph.taps[root]}")
        reasons = {entry.reason for block in self.blocks("", i) for entry in self.untapped(node, block)}
        if len(reasons) == 1:
            return Verdict("", reasons.pop())
        source = node["src"][0] if node["src"] else ""
        if self.graph.moves(i) or (isinstance(source, int) and keeps_order(node, self.nodes[source])) or node["op"] in COPIES:
            return Verdict("", "a view or a copy")
        if part := next(self.wholes(i), ""):
            return Verdict("", f"a part of {part}")
        return Verdict("", f"not known here: {self.graph.of(i) or node['op']}", {"unknown": True})

    def wholes(self, i: int) -> Iterator[str]:
        """The taps in whose definitions that of a node is."""
        made = self.graph.of(i)
        for block in self.blocks(made, i) if made else ():
            words = self.words(made, block)
            yield from (tap_of(entry, block) for entry in self.lines[block] if any(words in text for text in entry.made))

    def untapped(self, node: Node, block: int) -> Iterator[Entry]:
        """The lines of this name and operation that are not compared; of a node without a name none."""
        op, name = node["op"], normalised(node["name"], block)
        for section in self.sections[block] if name != "node" else ():
            yield from (entry for entry in self.table.sections[section] if not entry.tap and (entry.op, entry.name) == (op, name))


def sections_of(nodes: Sequence[Node], table: Table) -> dict[int, list[str]]:
    """For each number of a block the sections that have most of its tensors; for the number after them those of no block."""
    used = defaultdict[int, set[str]](set)
    for block, name in re.findall(r"\bblk\.(\d+)\.(\S+)", " ".join(str(source) for node in nodes for source in node["src"])):
        used[int(block)].add(name)
    has = {section: set(re.findall(r"\bblk\.N\.([^,) ]+)", " ".join(made_in(table.sections[section])))) for section in table.blocks}
    found = {}
    for block, names in used.items():
        shared = {section: len(names & mine) for section, mine in has.items()}
        found[block] = [section for section, count in shared.items() if count == max(shared.values())]
    return found | {max(used, default=-1) + 1: ["head", *table.tails]}


def made_in(entries: Iterable[Entry]) -> Iterator[str]:
    """The definitions in a section."""
    for entry in entries:
        yield from entry.made


def rows_of(table: Table) -> dict[str, str]:
    """Taps that are the rows of another one whose logits are asked for, here all: tap -> the other one."""
    entries = (entry for section in table.sections.values() for entry in section)
    found = ((entry.tap, re.fullmatch(r"GET_ROWS\(([\w#-]+)\)", " ".join(entry.made))) for entry in entries)
    return {tap: match[1] for tap, match in found if match}


def plain(made: str, rows: Mapping[str, str]) -> str:
    """A definition in which the rows of a tap are that tap."""
    return re.sub(r"[\w#-]+", lambda word: rows.get(word[0], word[0]), made)


def tap_of(entry: Entry, block: int) -> str:
    """A line's tap in a block."""
    return re.sub(r"(?<=-)N\b", str(block), entry.tap)


def known_words(made: str) -> set[str]:
    """The sources in a definition that have a place: tensors of the file and taps, not definitions."""
    inside = made.partition("(")[2].removesuffix(")")
    return {word for word in inside.split(", ") if word and "(" not in word and ")" not in word and word not in (UNKNOWN, MANY)}


class Placed:
    """What becomes of the nodes of a run that was listed before; the same nodes have to come again, call after call.

    block  number of the block being computed; -1 before the first
    """

    def __init__(self, calls: Sequence[Sequence[Node]], table: Table) -> None:
        self.calls = [list(zip(nodes, Placing(nodes, table).verdicts(), strict=True)) for nodes in calls]
        self.call, self.at, self.block = -1, 0, -1

    def begin(self, first: int = 0) -> None:
        """Expect the first node of the next call."""
        self.call, self.at, self.block = self.call + 1, 0, first - 1

    def feed(self, op: str, name: str) -> Verdict:
        """The verdict on the next node. UnknownNode if it is not the one that was listed."""
        node, verdict = self.calls[self.call][self.at] if self.at < len(self.calls[self.call]) else ({"op": "", "name": ""}, None)
        if verdict is None or (node["op"], node["name"]) != (op, name):
            raise UnknownNode(
                f"llama.cpp's graph has {op} {name!r}, where it had {node['op']} {node['name']!r} before; try it again"
            )
        self.at += 1
        if verdict.tap.startswith("l_out-"):
            self.block = int(verdict.tap.removeprefix("l_out-"))
        return verdict

    def end(self) -> None:
        """Check that the graph is complete. UnknownNode if there was more."""
        if self.at < len(self.calls[self.call]):
            raise UnknownNode("llama.cpp's graph has fewer nodes than before; try it again")
