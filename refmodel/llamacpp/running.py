"""A model and a context in a loaded llama.cpp, and the calls that decode tokens there.

Source: llama.cpp include/llama.h.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes import c_int8, c_int32
from typing import Any, Protocol

import numpy as np

from ..arrays import F
from ..errors import OracleError
from .layouts import Layout
from .structures import Api

CONTEXT_MTP = 1  # LLAMA_CONTEXT_TYPE_MTP: its graph is the prediction block's
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
BATCH_OF_2025 = 64  # the smallest n_batch of versions of that year
KV_TYPE = {"f32": 0, "f16": 1}


class Refused(Exception):
    """llama.cpp refused; its log, which the parent reads, has the reason. The message goes on after the model's path."""


class Watcher(Protocol):
    """Who sees the nodes of a call.

    error  what was raised while it looked; None so far
    """

    error: BaseException | None

    def begin(self, call: int, past: int, new: int, first: int = 0) -> None:
        """Call number `call` begins: `past` tokens came before it, `new` are its own; `first` is the number of its first block."""

    def end(self) -> None:
        """The call is done."""


def possible(profile: Mapping[str, Any], layout: Layout, mtp: bool = False) -> dict[str, Any]:
    """The options as this version has them. Where it has no `auto` for flash attention, that is off, as it then is by default.

    OracleError for what was asked for and is not there.
    """
    if not profile["repack"] and not hasattr(layout.model, "use_extra_bufts"):
        raise OracleError("this llama.cpp cannot be asked not to repack weights; leave out repack=off, or give a newer one")
    if mtp and not (hasattr(layout.model, "load_mtp") and hasattr(layout.context, "ctx_other")):
        raise OracleError("this llama.cpp has no draft head; leave out --mtp, or give a newer one")
    auto = profile["flash_attn"] == "auto" and not hasattr(layout.context, "flash_attn_type")
    return {**profile, **({"flash_attn": "off"} if auto else {})}


def load_model(lib: ctypes.CDLL, path: str, profile: Mapping[str, Any], mtp: bool = False) -> int:
    """Load a model on the CPU; returns llama.cpp's pointer. Refused if llama.cpp does not load it."""
    params = lib.llama_model_default_params()
    wanted = {"n_gpu_layers": 0, "use_extra_bufts": profile["repack"], "load_mtp": mtp}
    for name in wanted.keys() & {name for name, *_ in params._fields_}:
        setattr(params, name, wanted[name])
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

    callback  cb_eval; whoever made it keeps it alive
    trunk     the trunk's context, for a context whose graph is the prediction block's

    OracleError if the context has not got what it was asked for: then the structure is misread.
    """
    params = api.lib.llama_context_default_params()
    longest = max(map(len, calls))
    wanted = {
        "n_ctx": -(-sum(map(len, calls)) // 256) * 256,
        **dict.fromkeys(("n_batch", "n_ubatch"), longest),
        **dict.fromkeys(("n_outputs_max", "n_outputs_max_per_seq"), 0),  # as many as n_batch
        **dict.fromkeys(("n_threads", "n_threads_batch"), profile["threads"]),
        "flash_attn_type": FLASH_ATTN[profile["flash_attn"]],
        "flash_attn": profile["flash_attn"] == "on",
        **dict.fromkeys(("type_k", "type_v"), KV_TYPE[profile["kv"]]),
        "cb_eval": ctypes.cast(callback, ctypes.c_void_p),
        **({"ctx_type": CONTEXT_MTP, "ctx_other": trunk} if trunk else {}),
    }
    for name in wanted.keys() & {name for name, *_ in params._fields_}:
        setattr(params, name, wanted[name])
    context: int | None = api.lib.llama_init_from_model(model, params)
    if not context:
        raise Refused("gets no context from llama.cpp")
    sizes = {name: getattr(api.lib, f"llama_{name}")(context) for name in ("n_batch", "n_ubatch", "n_threads", "n_threads_batch")}
    allowed = {**wanted, "n_batch": max(longest, BATCH_OF_2025 if sizes["n_batch"] == BATCH_OF_2025 else 0)}
    if wrong := [f"{name} {got}, not {wanted[name]}" for name, got in sizes.items() if got != allowed[name]]:
        raise OracleError(f"{api.path}: its context has {', '.join(wrong)}: its structures are misread; give another build")
    return context


def decode(
    api: Api,
    context: int,
    call: int,
    past: int,
    tokens: Sequence[int],
    watcher: Watcher | None,
    last: bool = False,
    hidden: F | None = None,
    first: int = 0,
) -> None:
    """Decode one call as one ubatch; positions go on where the sequence ends. Logits are made of all tokens, or of the `last` one.

    call     number of the call
    past     tokens before it
    watcher  whose callback sees its nodes; None for none
    hidden   [T, E] what a prediction block reads besides the tokens
    first    number of the graph's first block

    Refused if llama.cpp does not run it; raises what the watcher's callback raised.
    """
    if watcher:
        watcher.begin(call, past, len(tokens), first)
    ids, wanted = (c_int32 * len(tokens))(*tokens), (c_int8 * len(tokens))(*[not last] * (len(tokens) - 1), 1)
    batch = api.layout.batch(n_tokens=len(tokens), token=ctypes.addressof(ids), logits=ctypes.addressof(wanted))
    if hidden is not None:
        hidden = np.ascontiguousarray(hidden, np.float32)
        batch.embd = hidden.ctypes.data
    status = api.lib.llama_decode(context, batch)
    if watcher and watcher.error:
        raise watcher.error
    if status:
        raise Refused(f"is not run by llama.cpp on these {len(tokens)} tokens (llama_decode gives {status})")
    if watcher:
        watcher.end()


def logits(api: Api, context: int, model: int, rows: int) -> F:
    """The logits of the last call's tokens, [rows, V], in llama.cpp's memory: the next call writes there."""
    n_vocab = api.lib.llama_vocab_n_tokens(api.lib.llama_model_get_vocab(model))
    return np.ctypeslib.as_array(api.lib.llama_get_logits(context), (rows, n_vocab))
