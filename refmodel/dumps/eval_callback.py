"""The log of llama-eval-callback or llama-debug: the first and last three numbers of each axis of each node, and a sum.

    common_debug_cb_eval:   l_out-0 = (f32)   ADD(ffn_out-0{256, 5, 1, 1}, attn_residual-0{256, 5, 1, 1}}) = {256, 5, 1, 1}
        [ [ [      0.0214,      -0.1127,  ...
        sum = 12.345678

Sizes are ggml's, the row's length first. A name that a block has twice gets the number of its earlier nodes: norm-0, norm-0#1.
Source: llama.cpp common/debug.cpp.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ..errors import DumpError
from ..forward.taps import in_call
from ..machine.files import text_of
from .dump import Dump, Numbers

HEAD = re.compile(
    r"(?:ggml_debug|common_debug_cb_eval):\s+(?P<name>\S.*?) = \((?P<type>\w+)\)\s+(?P<op>[A-Z0-9_]+)\(.*\) = "
    r"\{(?P<ne>\d+, \d+, \d+, \d+)\}\s*$"
)
NUMBER = re.compile(r"-?(?:\d+\.\d+|inf|nan)")
SUM = re.compile(r"^\s*sum = (-?(?:\d+\.\d+|inf|nan))\s*$")
MOST = 1 << 60  # numbers of a node
SHOWN = 3  # numbers at each end of an axis
FLOATS = {"f32", "f16", "bf16"}


@dataclass
class Node:
    """One node as it is printed: its name, ggml's operation, its sizes, the numbers, their decimals, and the sum."""

    name: str
    op: str
    ne: tuple[int, ...]
    values: list[float]
    decimals: int = 0
    total: float = np.nan


def looks_like(start: str) -> bool:
    """Whether the beginning of a text has a node's line."""
    return any(HEAD.search(line) for line in start.splitlines())


def read_log(path: Path) -> Dump:
    """The nodes of a log. Each graph is a call; a warm-up before the prompt is left out. DumpError for a log without a node."""
    text = text_of(path, errors="replace")
    tokens, graphs = token_ids(text), split(nodes(text))
    lengths = [next((node.ne[1] for node in graph if node.op == "GET_ROWS"), 0) for graph in graphs]
    while tokens and len(graphs) > 1 and lengths[0] != len(tokens):
        graphs, lengths = graphs[1:], lengths[1:]
    arrays = {}
    for call, graph in enumerate(graphs):
        seen: Counter[str] = Counter()
        for node in graph:
            name = f"{node.name}#{seen[node.name]}" if seen[node.name] else node.name
            seen[node.name] += 1
            if (array := printed(node)) is not None:
                arrays[in_call(name, call)] = array
    if not arrays:
        raise DumpError(f"{path}: has no node with numbers; run llama-eval-callback, or llama-debug with --verbose")
    about = {"numerics": "llamacpp", "who": "a log of llama-eval-callback or llama-debug"}
    return Dump(
        path, "a log of llama-eval-callback", arrays, [tokens] if tokens and len(graphs) == 1 else None, about, printed=True
    )


def nodes(text: str) -> Iterator[Node]:
    """The nodes of floats in a log, in its order."""
    node: Node | None = None
    for line in text.splitlines():
        if match := HEAD.search(line):
            if node:
                yield node
            ne = tuple(int(n) for n in match["ne"].split(", "))
            node = Node(match["name"].strip(), match["op"], ne, []) if match["type"] in FLOATS else None
        elif node and (total := SUM.match(line)):
            node.total = float(total[1]) if np.isnan(node.total) else node.total
        elif node and set(line) <= set("[].,-0123456789infa \t"):
            found = NUMBER.findall(line)
            node.values += map(float, found)
            node.decimals = node.decimals or max((len(word.partition(".")[2]) for word in found), default=0)
    if node:
        yield node


def split(every: Iterator[Node]) -> list[list[Node]]:
    """The nodes graph by graph: a graph begins with the name that the first one begins with."""
    graphs: list[list[Node]] = []
    for node in every:
        if not graphs or (node.name == graphs[0][0].name and node.op == graphs[0][0].op == "GET_ROWS"):
            graphs.append([])
        graphs[-1].append(node)
    return graphs


def printed(node: Node) -> Numbers | None:
    """The numbers of a node that are in the log; None if their count is not the one that is printed for its sizes."""
    shape = node.ne[::-1]
    shown = [range(n) if n <= 2 * SHOWN else (*range(SHOWN), *range(n - SHOWN, n)) for n in shape]
    if len(node.values) == prod(shape):
        shown = [range(n) for n in shape]
    if len(node.values) != prod(map(len, shown)) or 0 in shape:
        return None
    if prod(shape) > MOST:
        return None
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    at = sum(axis * stride for axis, stride in zip(np.ix_(*shown), strides, strict=True)).ravel()
    values = np.array(node.values)
    total = node.total if node.ne[3] == 1 else np.nan
    return Numbers(squeezed(shape), "F32", lambda: values, at, step=0.5 * 10.0**-node.decimals, total=total)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the leading axes of length 1, at least two axes long."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def token_ids(text: str) -> list[int]:
    """The prompt's token ids, where the log has them; else none."""
    if match := re.search(r"number of input tokens = (\d+)\s*\n", text):
        count = int(match[1])
        ids = re.findall(r"^[^\n]*?(\d+)\s*$", text[match.end() :], re.MULTILINE)[:count]
        return [int(i) for i in ids] if len(ids) == count else []
    if match := re.search(r"Token ids \((\d+)\):\s*\n([^\n]*)", text):
        ids = re.findall(r"\((\d+)\)(?: |$)", match[2])
        return [int(i) for i in ids] if len(ids) == int(match[1]) else []
    return []
