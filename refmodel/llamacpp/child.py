"""The child process in which llama.cpp runs: everything foreign happens here, and a crash ends this process only.

`python -m refmodel.llamacpp.child` reads one request (JSON) from stdin and answers on stdout with one JSON object a line:
{"block": N} and {"call": k} as they are done, then one of done, error (ours) and refused (llama.cpp's). What llama.cpp
itself says goes to stderr.
"""

import ctypes
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from ctypes import c_char, c_int8, c_int32
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..arrays import F
from ..errors import OracleError, RefmodelError
from ..forward.taps import in_call
from ..forward.trace import Spool
from ..gguf.reader import read
from .node_variants import as_stored
from .nodes import Aligner, table
from .structures import CALLBACK, Api, Batch, Tensor

CONTEXT_MTP = 1  # LLAMA_CONTEXT_TYPE_MTP: its graph is the prediction block's
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
KV_TYPE = {"f32": 0, "f16": 1}
SAME_NUMBERS = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT"}  # operations that compute nothing
FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.float16)}


class Refused(Exception):
    """llama.cpp refused; its log, which the parent reads, has the reason. The message goes on after the model's path."""


class Taker:
    """Sees every node right after it is computed, and spools those that the table of names says are compared.

    keep   a regular expression: only taps in which it is found are stored
    nodes  for each call, every node as plain data
    error  what was raised in the callback; None so far
    """

    def __init__(self, lib: ctypes.CDLL, names: Aligner, spool: Spool, keep: str, channel: TextIO) -> None:
        self.lib, self.names, self.spool, self.channel = lib, names, spool, channel
        self.keep = re.compile(keep).search
        self.call, self.past, self.new = 0, 0, 0  # number of this call, tokens of earlier calls, tokens of this one
        self.hidden: F = np.zeros((0, 0), np.float32)  # what a prediction block reads, [T, E] of this call
        self.error: BaseException | None = None
        self.nodes: list[list[dict[str, Any]]] = []

    def begin(self, call: int, past: int, new: int, first: int = 0) -> None:
        """Call number `call` begins: `past` tokens came before it, `new` are its own; `first` is the number of its first block."""
        self.call, self.past, self.new = call, past, new
        self.names.begin(first)
        self.nodes.append([])

    def callback(self, pointer: int, ask: bool, _: int | None) -> bool:
        """cb_eval: called before a node to ask whether it is needed, and after it; False then stops the graph."""
        if ask or self.error:
            return ask
        try:
            self.take(Tensor.from_address(pointer), self.lib.ggml_op_desc(pointer).decode())
        except BaseException as error:  # it cannot pass through foreign frames; `decode` raises it
            self.error = error
        return self.error is None

    def take(self, tensor: Tensor, op: str) -> None:
        """Note a node, and spool its numbers if it is compared. OracleError for a node that the table does not have here."""
        name = tensor.name.decode(errors="replace")
        verdict = self.names.feed(op, name)
        tap, reason = verdict.tap, verdict.reason
        if tap and not self.keep(tap):
            tap, reason = "", "left out by the filter"
        if verdict.tap == "h_nextn":
            self.hidden = array(tensor).reshape(self.new, -1).copy()
        node = {"op": op, "name": name, "ne": list(tensor.ne), "tap": tap, "reason": reason}
        self.nodes[-1].append(node)
        if tap:
            node["source"] = self.source(tensor, op)
            self.spool.add(in_call(tap, self.call), squeezed(canonical(tap, op, tensor, self.past, self.new)))
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


def run(api: Api, request: Mapping[str, Any], channel: TextIO) -> dict[str, Any]:
    """Load the model, decode the calls in order as one sequence, and write the trace. Returns the answer for the parent.

    Refused if llama.cpp refuses; OracleError for a node that the table does not have.
    """
    lib, calls, path = api.lib, request["calls"], request["model"]
    lib.llama_backend_init()
    model = load_model(lib, path, request["profile"], request["mtp"])
    architecture = metadata(lib, model, "general.architecture")
    n_vocab, past = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)), 0
    provenance = request["provenance"] | {"build": api.build, "architecture": architecture}
    with Spool(Path(request["out"]), {"provenance": json.dumps(provenance)}) as spool:
        taker = Taker(lib, aligner(architecture, path), spool, request["keep"], channel) if request["taps"] else None
        callback = CALLBACK(taker.callback) if taker else CALLBACK()
        context = new_context(api, model, calls, request["profile"], callback)
        head = DraftHead(api, model, architecture, request, context, taker) if taker and request["mtp"] else None
        for k, tokens in enumerate(calls):
            decode(lib, context, k, past, tokens, taker, last=request["last"])
            if head:
                head.decode(k, past, tokens)
            past += len(tokens)
            name, rows = in_call("result_output", k), 1 if request["last"] else len(tokens)
            if name not in spool.entries:
                spool.add(name, squeezed(np.ctypeslib.as_array(lib.llama_get_logits(context), (rows, n_vocab))))
            say(channel, call=k)
        trunk, drafted = (taker.nodes if taker else []), (head.taker.nodes if head else [])
        spool.metadata["nodes"] = json.dumps([[*a, *b] for a, b in zip_longest(trunk, drafted, fillvalue=())])
    return {"build": api.build, "tensors": len(spool)}


def aligner(architecture: str, path: str) -> Aligner:
    """The walk along an architecture's table, for this file. OracleError if there is no table."""
    return Aligner(as_stored(table(architecture), read(Path(path)).tensors))


class DraftHead:
    """A second context over the same model, whose graph is the prediction block's, fed next to the trunk's as llama.cpp does.

    Each token comes with the trunk's hidden state of the token before it; the first one with zeros.
    Source: common/speculative.cpp, common_speculative_impl_draft_mtp::process.
    """

    def __init__(self, api: Api, model: int, architecture: str, request: Mapping[str, Any], context: int, trunk: Taker) -> None:
        blocks, predicting = (
            int(metadata(api.lib, model, f"{architecture}.{key}") or 0) for key in ("block_count", "nextn_predict_layers")
        )
        self.lib, self.trunk, self.first = api.lib, trunk, blocks - predicting
        names = aligner(f"mtp/{architecture}", request["model"])
        self.taker = Taker(api.lib, names, trunk.spool, request["keep"], trunk.channel)
        self.callback = CALLBACK(self.taker.callback)
        self.context = new_context(api, model, request["calls"], request["profile"], self.callback, context)
        self.last: F | None = None  # the hidden state of the newest token, [1, E]

    def decode(self, call: int, past: int, tokens: Sequence[int]) -> None:
        """Decode the same call as the trunk just did: its number, the tokens before it, its own tokens."""
        hidden = self.trunk.hidden
        before = np.zeros_like(hidden[:1]) if self.last is None else self.last
        self.last = hidden[-1:]
        shifted = np.concatenate([before, hidden[:-1]])
        decode(self.lib, self.context, call, past, tokens, self.taker, hidden=shifted, first=self.first)


def load_model(lib: ctypes.CDLL, path: str, profile: Mapping[str, Any], mtp: bool = False) -> int:
    """Load a model on the CPU; returns llama.cpp's pointer. Refused if llama.cpp does not load it."""
    params = lib.llama_model_default_params()
    params.load_mtp = mtp
    params.n_gpu_layers, params.use_extra_bufts = 0, profile["repack"]
    model: int | None = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise Refused("is not loaded by llama.cpp")
    return model


def metadata(lib: ctypes.CDLL, model: int, key: str) -> str:
    """A metadata value as llama.cpp prints it, at most 255 bytes; empty if the key is missing."""
    text = ctypes.create_string_buffer(256)
    lib.llama_model_meta_val_str(model, key.encode(), text, len(text))
    return text.value.decode(errors="replace")


def new_context(
    api: Api, model: int, calls: Sequence[Sequence[int]], profile: Mapping[str, Any], callback: Any, trunk: int | None = None
) -> int:
    """A context in which every call is one ubatch and all rows may have logits: llama.cpp's pointer. Refused if there is none.

    trunk  the trunk's context, for a context whose graph is the prediction block's
    """
    params = api.lib.llama_context_default_params()
    if trunk:
        params.ctx_type, params.ctx_other = CONTEXT_MTP, trunk
    params.n_ctx = -(-sum(map(len, calls)) // 256) * 256
    params.n_batch = params.n_ubatch = max(map(len, calls))
    params.n_outputs_max = params.n_outputs_max_per_seq = 0  # as many as n_batch
    params.n_threads = params.n_threads_batch = profile["threads"]
    params.flash_attn_type = FLASH_ATTN[profile["flash_attn"]]
    params.type_k = params.type_v = KV_TYPE[profile["kv"]]
    params.cb_eval = callback
    context: int | None = api.lib.llama_init_from_model(model, params)
    if not context:
        raise Refused("gets no context from llama.cpp")
    return context


def decode(
    lib: ctypes.CDLL,
    context: int,
    call: int,
    past: int,
    tokens: Sequence[int],
    taker: Taker | None,
    last: bool = False,
    hidden: F | None = None,
    first: int = 0,
) -> None:
    """Decode one call as one ubatch; positions go on where the sequence ends. Logits are made of all tokens, or of the `last` one.

    call    number of the call
    past    tokens before it
    taker   receives its nodes; None for none
    hidden  [T, E] what a prediction block reads besides the tokens
    first   number of the graph's first block

    Refused if llama.cpp does not run it; raises what the taker's callback raised.
    """
    if taker:
        taker.begin(call, past, len(tokens), first)
    ids, wanted = (c_int32 * len(tokens))(*tokens), (c_int8 * len(tokens))(*[not last] * (len(tokens) - 1), 1)
    batch = Batch(n_tokens=len(tokens), token=ctypes.addressof(ids), logits=ctypes.addressof(wanted))
    if hidden is not None:
        hidden = np.ascontiguousarray(hidden, np.float32)
        batch.embd = hidden.ctypes.data
    status = lib.llama_decode(context, batch)
    if taker and taker.error:
        raise taker.error
    if status:
        raise Refused(f"is not run by llama.cpp on these {len(tokens)} tokens (llama_decode gives {status})")
    if taker:
        taker.names.end()


def say(channel: TextIO, **message: Any) -> None:
    """Write one line for the parent, a JSON object."""
    print(json.dumps(message), file=channel, flush=True)


def main() -> None:
    """Read the request, answer it, and end the process."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what foreign code prints is no answer
    request = json.load(sys.stdin)
    try:
        api = Api(request["files"], request["variant"])
        say(channel, done=run(api, request, channel) if "model" in request else {"build": api.build})
    except RefmodelError as error:
        say(channel, error=str(error))
    except Refused as error:
        say(channel, refused=str(error))
    channel.close()
    os._exit(0)  # the file is whole; unloading foreign code could only spoil that


if __name__ == "__main__":
    main()
