"""Who looks at llama.cpp's nodes while it computes: one that takes their numbers, one that only lists them."""

import ctypes
import json
import re
from ctypes import c_char
from typing import Any, Protocol, TextIO

import numpy as np

from ..arrays import F
from ..errors import OracleError
from ..forward.taps import in_call
from ..forward.trace import Spool
from .nodes import Verdict
from .structures import Tensor

SAME_NUMBERS = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT"}  # operations that compute nothing
FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.float16)}


class Names(Protocol):
    """Who says of each node of a graph, in order, what becomes of it; nodes.Aligner and placing.Placed do.

    block  number of the block being computed; -1 in the head
    """

    block: int

    def begin(self, first: int = 0) -> None:
        """Expect the first node of a graph whose first block has number `first`."""

    def feed(self, op: str, name: str) -> Verdict:
        """The verdict on the next node."""

    def end(self) -> None:
        """The graph is complete."""


class Lister:
    """Sees every node right before it is computed, and notes what the graph says of it: nothing is taken, nothing is slower.

    nodes  for each call, every node as plain data: op, name, ne, and src, its sources: the number of a node of the same call, or
           the name of a tensor that the graph does not compute
    error  what was raised in the callback; None so far
    """

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib, self.at = lib, dict[int, int]()  # address of a node of this call -> its number
        self.nodes: list[list[dict[str, Any]]] = []
        self.error: BaseException | None = None

    def begin(self, call: int, past: int, new: int, first: int = 0) -> None:
        """Call number `call` begins."""
        self.nodes.append([])
        self.at.clear()

    def end(self) -> None:
        """The call is done."""

    def callback(self, pointer: int, ask: bool, _: int | None) -> bool:
        """cb_eval: called before a node to ask whether it is needed, and if it is, after it."""
        try:
            if ask and not self.error:
                self.note(pointer)
        except BaseException as error:  # it cannot pass through foreign frames; `decode` raises it
            self.error = error
        return False

    def note(self, pointer: int) -> dict[str, Any]:
        """Add a node to the list, and return it."""
        tensor = Tensor.from_address(pointer)
        node = {
            "op": self.lib.ggml_op_desc(pointer).decode(),
            "name": tensor.name.decode(errors="replace"),
            "ne": list(tensor.ne),
            "src": [self.at[source] if source in self.at else named(source) for source in tensor.src if source],
        }
        self.at[pointer] = len(self.nodes[-1])
        self.nodes[-1].append(node)
        return node


def named(pointer: int) -> str:
    """The name of the tensor at an address."""
    return str(Tensor.from_address(pointer).name.decode(errors="replace"))


class Taker(Lister):
    """Sees every node right after it is computed, and spools those that `names` says are compared.

    keep   a regular expression: only taps in which it is found are stored
    nodes  as those of a Lister, with tap, reason, and source: the operation that computed a tap's numbers
    """

    def __init__(self, lib: ctypes.CDLL, names: Names, spool: Spool, keep: str, channel: TextIO) -> None:
        super().__init__(lib)
        self.names, self.spool, self.channel = names, spool, channel
        self.keep = re.compile(keep).search
        self.call, self.past, self.new = 0, 0, 0  # number of this call, tokens of earlier calls, tokens of this one
        self.hidden: F = np.zeros((0, 0), np.float32)  # what a prediction block reads, [T, E] of this call

    def begin(self, call: int, past: int, new: int, first: int = 0) -> None:
        """Call number `call` begins: `past` tokens came before it, `new` are its own; `first` is the number of its first block."""
        super().begin(call, past, new, first)
        self.call, self.past, self.new = call, past, new
        self.names.begin(first)

    def end(self) -> None:
        """The call is done. UnknownNode if its graph was not complete."""
        self.names.end()

    def callback(self, pointer: int, ask: bool, _: int | None) -> bool:
        """cb_eval: called before a node to ask whether it is needed, and after it; False then stops the graph."""
        if ask or self.error:
            return ask
        try:
            self.take(pointer)
        except BaseException as error:  # it cannot pass through foreign frames; `decode` raises it
            self.error = error
        return self.error is None

    def take(self, pointer: int) -> None:
        """Note a node, and spool its numbers if it is compared. UnknownNode for a node that the table does not have here."""
        node, tensor = self.note(pointer), Tensor.from_address(pointer)
        verdict = self.names.feed(node["op"], node["name"])
        tap, reason = verdict.tap, verdict.reason
        if tap and not self.keep(tap):
            tap, reason = "", "left out by the filter"
        if verdict.tap == "h_nextn":
            self.hidden = array(tensor).reshape(self.new, -1).copy()
        node |= {"tap": tap, "reason": reason, **verdict.more}
        if tap:
            node["source"] = self.source(tensor, node["op"])
            self.spool.add(in_call(tap, self.call), squeezed(canonical(tap, node["op"], tensor, self.past, self.new)))
        if verdict.tap.startswith("l_out-"):
            say(self.channel, block=self.names.block)

    def source(self, tensor: Tensor, op: str) -> str:
        """The operation that computed a tensor's numbers: of a view or a copy, that of the tensor that it shows."""
        while op in SAME_NUMBERS and tensor.src[0] and (of := self.lib.ggml_op_desc(tensor.src[0]).decode()) != "NONE":
            tensor, op = Tensor.from_address(tensor.src[0]), of
        return op


def array(tensor: Tensor) -> F:
    """A view of the tensor's memory, slowest axis first; f32 or f16. OracleError for anything else."""
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    if tensor.type not in FLOATS or not tensor.data or 0 in shape:
        raise OracleError(
            f"node {tensor.name.decode()} holds no floats (type {tensor.type}, shape {shape}) and cannot be compared; "
            "leave it out with --filter"
        )
    dtype = FLOATS[tensor.type]
    extent = dtype.itemsize + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    return np.ndarray(shape, dtype, (c_char * extent).from_address(tensor.data), strides=strides)


def canonical(tap: str, op: str, tensor: Tensor, past: int, new: int) -> F:
    """What the tap means, float32, cut to the tokens there are; llama.cpp pads its caches and scores to whole pages.

    cache_k, cache_v     [S, G*D]   the first S cells; values may be transposed
    kq, kq_soft_max      [H, T, S]  0 for keys of the future
    Qcur, Kcur, Vcur, z  [T, H*D]   as other products, where they are parts of one and llama.cpp shows them by heads

    OracleError if the node holds no floats.
    """
    x, tokens, stem = array(tensor), past + new, tap.partition("-")[0]
    if stem in ("cache_k", "cache_v"):
        width, cells = Tensor.from_address(tensor.view_src).ne[:2]
        x = x.reshape(cells, width) if tensor.ne[0] == width else x.reshape(width, cells).T
        x = x[:tokens]
    elif stem in ("kq", "kq_soft_max"):
        seen = np.arange(tokens) <= past + np.arange(new)[:, None]
        x = np.where(seen, x[0, :, :, :tokens], np.float32(0))
    elif stem in ("Qcur", "Kcur", "Vcur", "z") and op in SAME_NUMBERS:
        x = x.reshape(new, -1)
    return x.astype(np.float32, copy=False)


def squeezed(x: F) -> F:
    """The array without its axes of length 1."""
    return x.reshape([n for n in x.shape if n != 1])


def say(channel: TextIO, **message: Any) -> None:
    """Write one line for the parent, a JSON object."""
    print(json.dumps(message), file=channel, flush=True)
