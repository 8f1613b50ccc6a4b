"""What a graph says of each of its nodes, besides the name: the operation, and what it is computed from.

A definition is an operation and its sources in words, `MUL_MAT(blk.N.attn_q.weight, attn_norm-N)`. A source is a tensor of the
file, a tap, or in turn a definition. `input` is what a block reads: the embeddings, or what the block before it gives. Left out
are other tensors that the graph does not compute: positions, masks, what a cache of keys or values holds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

Node = Mapping[str, Any]  # plain data, as taker.Lister has it: op, name, ne, src

KEEP_ORDER = {"RESHAPE", "CONT"}  # the same numbers in the same order
MOVE = {"PERMUTE", "TRANSPOSE"}  # the same numbers in another order
SYMMETRIC = {"ADD", "MUL"}
GIVEN = re.compile(r"(blk\.\d+|token_embd|output|output_norm)\.\S+|cache_[rs]_l\d+")  # tensors of a file, states of sequences
LONGEST = 300  # letters of a definition; a longer one is of a part that nobody here knows
UNKNOWN = "?"
MANY = "..."  # in a sum: some of its terms are several in the same words


def roots(nodes: Sequence[Node]) -> list[int]:
    """For each node the number of the one that computed its numbers, in the same order: its own for most."""
    found: list[int] = []
    for i, node in enumerate(nodes):
        source = node["src"][0] if node["src"] else ""
        found.append(found[source] if isinstance(source, int) and keeps_order(node, nodes[source]) else i)
    return found


def keeps_order(node: Node, source: Node) -> bool:
    """Whether a node has all its source's numbers, in the same order."""
    return node["op"] in KEEP_ORDER or (node["op"] == "VIEW" and prod(node["ne"]) == prod(source["ne"]))


class Definitions:
    """The definitions of the nodes of one call, while more and more of them get taps.

    roots  as the function gives them
    taps   a root's tap, absolute: `Qcur-3`
    """

    def __init__(self, nodes: Sequence[Node], taps: Mapping[int, str] = MappingProxyType({})) -> None:
        self.nodes, self.roots, self.taps = nodes, roots(nodes), dict(taps)
        self.known: dict[int, str] = {}

    def of(self, node: int) -> str:
        """The definition of a root; empty for one without sources of any meaning."""
        if node not in self.known:
            op, words = self.nodes[node]["op"], [word for word in map(self.source, self.nodes[node]["src"]) if word]
            if op in SYMMETRIC:
                terms = list(self.terms(node))
                words = sorted(set(terms), key=in_order) + [MANY] * (len(set(terms)) < len(terms))
            text = f"{op}({', '.join(words)})" if words else ""
            self.known[node] = text if len(text) <= LONGEST else f"{op}({UNKNOWN})"
        return self.known[node]

    def terms(self, node: int) -> Iterator[str]:
        """The sources of a sum, and of the sums among them that have no tap: a sum of eight is one."""
        for source in self.nodes[node]["src"]:
            root = self.roots[source] if isinstance(source, int) else -1
            if root >= 0 and root not in self.taps and self.nodes[root]["op"] == self.nodes[node]["op"]:
                yield from self.terms(root)
            elif word := self.source(source):
                yield word

    def source(self, source: int | str) -> str:
        """A source in words; empty for one that is left out."""
        if isinstance(source, str):
            return source if GIVEN.fullmatch(source) else ""
        root = self.roots[source]
        if root in self.taps:
            return self.taps[root]
        return self.source(self.nodes[root]["src"][0]) if self.moves(root) else self.of(root)

    def moves(self, root: int) -> bool:
        """Whether a node shows its first source's numbers, all of them."""
        op, sources = self.nodes[root]["op"], self.nodes[root]["src"]
        if op == "GET_ROWS":  # of all tokens, whose logits are asked for
            return [isinstance(source, int) for source in sources] == [True, False]
        return op in MOVE or (op in KEEP_ORDER and bool(sources))

    def starts(self, root: int) -> set[str]:
        """The taps that a root is computed from."""
        found = set[str]()
        for source in self.nodes[root]["src"]:
            if isinstance(source, int):
                of = self.roots[source]
                found |= {self.taps[of]} if of in self.taps else self.starts(of)
        return found

    def written(self, state: str) -> Iterator[int]:
        """The nodes whose numbers this call leaves in a tensor that it does not compute, `cache_s_l0`."""
        for node in self.nodes:
            if node["op"] == "CPY" and 0 not in node["ne"] and self.shown(node["src"][1]) == state:
                yield node["src"][0]

    def shown(self, source: int | str) -> str:
        """The name of the tensor in whose memory a view is; empty if the graph computes it."""
        while not isinstance(source, str):
            sources = self.nodes[source]["src"]
            source = sources[0] if self.nodes[source]["op"] in KEEP_ORDER | {"VIEW"} and sources else ""
        return source

    def place(self, root: int, tap: str) -> None:
        """Give a root its tap; what is defined by it changes."""
        self.taps[root] = tap
        self.known.clear()


def in_order(word: str) -> str:
    """By what the words of a sum are sorted: the same in every block."""
    return re.sub(r"-\d+", "-N", word).replace("l_out-N", "input")


def block_of(tap: str) -> int | None:
    """The number of a tap's block: Kcur-3#1 -> 3. None for one of no block."""
    found = re.search(r"-(\d+)(#\w+)?$", tap)
    return int(found[1]) if found else None


def of_block(text: str, block: int, embedding: str) -> str:
    """A definition in the words of block number `block`: Kcur-3 -> Kcur-N, and `input` for what the block reads.

    embedding  the tap that block 0 reads
    """
    text = re.sub(rf"(?<![\w.-])l_out-{block - 1}(?![\d#])", "input", text)
    if block == 0:
        text = re.sub(rf"(?<![\w.-]){re.escape(embedding)}(?![\w.#-])", "input", text)
    text = re.sub(rf"(?:(?<=-)|(?<=\bblk\.)|(?<=cache_[rs]_l)){block}(?!\d)", "N", text)
    return re.sub(
        r"\b(ADD|MUL)\(([^().]+(?:\.[^().]+)*)\)", lambda found: f"{found[1]}({', '.join(sorted(found[2].split(', ')))})", text
    )
