"""The child process that runs foreign code: loads a libllama, runs token calls, and spools every compared tensor.

Run as `python -m refmodel.llamacpp_child REQUEST.json`. What goes wrong in here ends this process and no other.
"""

import ctypes
import json
import os
import re
import sys
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char, c_char_p, c_float, c_int8, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from .names import Namer, table_for
from .trace import Spool, in_call

DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    26: np.dtype("<i4"),
    27: np.dtype("<i8"),
}  # ggml_type -> NumPy
KV_TYPES = {"f32": 0, "f16": 1}
FLASH = {"auto": -1, "off": 0, "on": 1}


class Tensor(ctypes.Structure):
    """ggml_tensor, as in every build of LAYOUTS."""

    _fields_ = (
        ("type", c_int32),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int32),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
    )


class ModelParams(ctypes.Structure):
    """llama_model_params, 80 bytes."""

    _fields_ = (
        ("head", ctypes.c_uint8 * 72),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


Eval = ctypes.CFUNCTYPE(c_bool, POINTER(Tensor), c_bool, c_void_p)
Log = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)

CONTEXT_HEAD = (
    ("n_ctx", c_uint32),
    ("n_batch", c_uint32),
    ("n_ubatch", c_uint32),
    ("n_seq_max", c_uint32),
    ("n_rs_seq", c_uint32),
    ("n_outputs_max", c_uint32),
    ("n_outputs_max_per_seq", c_uint32),
    ("n_threads", c_int32),
    ("n_threads_batch", c_int32),
    ("ctx_type", c_int32),
    ("rope_scaling_type", c_int32),
    ("pooling_type", c_int32),
    ("attention_type", c_int32),
    ("flash_attn_type", c_int32),
    ("rope_freq_base", c_float),
    ("rope_freq_scale", c_float),
    ("yarn_ext_factor", c_float),
    ("yarn_attn_factor", c_float),
    ("yarn_beta_fast", c_float),
    ("yarn_beta_slow", c_float),
    ("yarn_orig_ctx", c_uint32),
    ("defrag_thold", c_float),
    ("cb_eval", Eval),
    ("cb_eval_user_data", c_void_p),
    ("type_k", c_int32),
    ("type_v", c_int32),
)


class ContextParams(ctypes.Structure):
    """llama_context_params, 160 bytes."""

    _fields_ = (*CONTEXT_HEAD, ("tail", ctypes.c_uint8 * 48))


class ContextParamsMoe(ctypes.Structure):
    """llama_context_params with moe_cache_size behind type_v, 168 bytes."""

    _fields_ = (*CONTEXT_HEAD, ("moe_cache_size", c_size_t), ("tail", ctypes.c_uint8 * 48))


class Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


# ggml commit -> how its structs are laid out; a build that is not here is refused
LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "0c1e570": ContextParams,  # llama-cpp-python 0.3.36
    "0ad4a86": ContextParams,  # @node-llama-cpp 3.22.1
    "0ce8cd1": ContextParamsMoe,  # b11739
}


class Refused(Exception):
    """Ends the child with one line that the parent shows."""


def load_library(path: Path) -> tuple[Any, Any, Any]:
    """(libllama, libggml-base, who): the libraries beside `path`, opened in the order of their dependence."""
    folder = path.parent
    for pattern in ("libggml-base.so*", "libggml-cpu.so*", "libggml.so*", "libggml.v*.so"):
        for found in sorted(folder.glob(pattern))[:1]:
            ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
    try:
        llama = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        base = ctypes.CDLL(str(sorted(folder.glob("libggml-base.so*"))[0]), mode=ctypes.RTLD_GLOBAL)
    except (OSError, IndexError) as error:
        raise Refused(f"{path}: cannot be loaded as libllama with libggml-base beside it: {error}") from None
    haswell = folder / "libggml-cpu-haswell.so"
    if haswell.exists():  # a build with one library for each level of CPU: the AVX2 one is the profile we know
        ggml = ctypes.CDLL(str(sorted(folder.glob("libggml.v*.so"))[0]), mode=ctypes.RTLD_GLOBAL)
        ggml.ggml_backend_load.restype, ggml.ggml_backend_load.argtypes = c_void_p, [c_char_p]
        if not ggml.ggml_backend_load(str(haswell).encode()):
            raise Refused(f"{haswell}: was refused by this machine; it needs AVX2")
    for name in ("ggml_version", "ggml_commit", "ggml_op_desc"):
        getattr(base, name).restype = c_char_p
    base.ggml_op_desc.argtypes = [POINTER(Tensor)]
    return llama, base, {"ggml": base.ggml_version().decode(), "commit": base.ggml_commit().decode()}


def layout(who: dict[str, str], path: Path) -> type[ctypes.Structure]:
    for commit, params in LAYOUTS.items():
        if who["commit"].startswith(commit):
            return params
    raise Refused(
        f"{path}: is a llama.cpp with ggml {who['ggml']}, commit {who['commit']}, whose structs are not known; "
        f"known commits are {', '.join(LAYOUTS)} (llama-cpp-python 0.3.36 has the first)"
    )


class Llama:
    """One model in one context. `watch` is called for every node: watch(tensor, ask) -> wanted."""

    def __init__(self, request: dict[str, Any], watch: Callable[[Any, bool], bool]) -> None:
        path, profile = Path(request["lib"]), request["profile"]
        self.lib, self.base, self.who = load_library(path)
        params = layout(self.who, path)
        self.messages: list[str] = []
        self._log = Log(lambda level, text, _: self.messages.append(text.decode(errors="replace")) if level >= 3 else None)
        self.failed: list[BaseException] = []
        self._eval = Eval(lambda t, ask, _: self.guarded(watch, t, ask))
        L = self.lib
        L.llama_log_set(self._log, None)
        L.llama_backend_init()
        L.llama_model_default_params.restype, L.llama_context_default_params.restype = ModelParams, params
        L.llama_model_load_from_file.restype = L.llama_init_from_model.restype = L.llama_model_get_vocab.restype = c_void_p
        L.llama_model_load_from_file.argtypes, L.llama_init_from_model.argtypes = [c_char_p, ModelParams], [c_void_p, params]
        L.llama_model_get_vocab.argtypes = L.llama_vocab_n_tokens.argtypes = L.llama_get_logits.argtypes = [c_void_p]
        L.llama_decode.argtypes, L.llama_get_logits.restype = [c_void_p, Batch], POINTER(c_float)
        model_params = L.llama_model_default_params()
        model_params.use_extra_bufts = profile["repack"]
        self.model = L.llama_model_load_from_file(request["model"].encode(), model_params)
        if not self.model:
            raise Refused(f"llama.cpp does not load {request['model']}: {self.last_message()}")
        longest, total = max(map(len, request["calls"])), sum(map(len, request["calls"]))
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_outputs_max, p.n_outputs_max_per_seq = (
            max(256, total),
            longest,
            longest,
            longest,
            longest,
        )
        p.n_threads = p.n_threads_batch = profile["threads"]
        p.flash_attn_type, p.type_k, p.type_v = FLASH[profile["flash_attn"]], KV_TYPES[profile["kv"]], KV_TYPES[profile["kv"]]
        if request["taps"]:
            p.cb_eval = self._eval
        self.context = L.llama_init_from_model(self.model, p)
        if not self.context:
            raise Refused(f"llama.cpp makes no context for {request['model']}: {self.last_message()}")
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        self.n_past = 0

    def guarded(self, watch: Callable[[Any, bool], bool], t: Any, ask: bool) -> bool:
        """An exception cannot pass through foreign frames: it ends the graph and is raised again behind it."""
        try:
            return watch(t, ask)
        except BaseException as error:
            self.failed.append(error)
            return False

    def last_message(self) -> str:
        return " ".join(line.strip() for line in self.messages[-3:]) or "it gave no reason"

    def decode(self, tokens: list[int]) -> np.ndarray[Any, Any]:
        """Feed tokens, all rows of logits: [T, V]."""
        n = len(tokens)
        one = (c_int32 * 1)(0)
        batch = Batch(
            n,
            (c_int32 * n)(*tokens),
            None,
            (c_int32 * n)(*range(self.n_past, self.n_past + n)),
            (c_int32 * n)(*[1] * n),
            (POINTER(c_int32) * n)(*[ctypes.cast(one, POINTER(c_int32))] * n),
            (c_int8 * n)(*[1] * n),
        )
        status = self.lib.llama_decode(self.context, batch)
        if self.failed:
            raise self.failed[0]
        if status:
            raise Refused(f"llama_decode returned {status}: {self.last_message()}")
        self.n_past += n
        return np.ctypeslib.as_array(self.lib.llama_get_logits(self.context), (n, self.n_vocab)).copy()


def array_of(t: Any) -> np.ndarray[Any, Any]:
    """The tensor's numbers in NumPy's order, axes of length 1 dropped, as float32; strides are those of the view."""
    dtype, ne, nb = DTYPES[t.type], list(t.ne)[::-1], list(t.nb)[::-1]
    span = sum((n - 1) * b for n, b in zip(ne, nb, strict=True)) + dtype.itemsize
    raw = np.frombuffer((ctypes.c_uint8 * span).from_address(t.data), np.uint8)
    x = np.ndarray(ne, dtype, raw.data, strides=nb)
    return np.ascontiguousarray(x.squeeze(), np.float32)


def record(request: dict[str, Any]) -> None:
    """Run the calls and write the trace."""
    table = table_for(request["arch"])
    keep = re.compile(request["keep"]).search
    calls: list[list[dict[str, Any]]] = []
    with Spool(Path(request["out"]), {}) as spool:
        state: dict[str, Any] = {}

        def watch(pointer: Any, ask: bool) -> bool:
            t = pointer.contents
            if ask:
                return True
            op, name = llama.base.ggml_op_desc(pointer).decode(), t.name.decode(errors="replace")
            tap, reason = state["namer"].name(op, name)
            empty = 0 in list(t.ne)
            node = {"op": op, "name": name, "ne": list(t.ne), "tap": tap, "reason": "empty" if empty else reason}
            calls[-1].append(node)
            if tap and not empty and not reason and t.type in DTYPES and keep(tap):
                x = canonical(tap, array_of(t), t, llama.n_past, state["n_new"], state["n_cells"])
                spool.add(in_call(tap, len(calls) - 1), x)
            return True

        llama = Llama(request, watch)
        llama.lib.llama_n_ctx.argtypes = [c_void_p]
        state["n_cells"] = llama.lib.llama_n_ctx(llama.context)
        for number, tokens in enumerate(request["calls"]):
            calls.append([])
            state["namer"], state["n_new"] = Namer(table), len(tokens)
            logits = llama.decode(tokens)
            if not request["taps"]:
                spool.add(in_call("result_output", number), logits)
        provenance = {**request["provenance"], **llama.who, "producer": "llama.cpp", "profile": request["profile"]}
        provenance["calls"] = request["calls"]
        provenance["who"] = (
            f"llama.cpp {llama.who['commit']} (ggml {llama.who['ggml']}), profile {request['profile']['name']}: flash attention "
            f"{request['profile']['flash_attn']}, {request['profile']['kv'].upper()} cache, {request['profile']['threads']} thread"
        )
        spool.metadata = {"provenance": json.dumps(provenance), "nodes": json.dumps(calls)}
    os._exit(0)  # the file is whole; unloading foreign code could only spoil that


def canonical(tap: str, x: Any, t: Any, n_past: int, n_new: int, n_cells: int) -> Any:
    """The few nodes whose layout is the cache's, brought to the layout of our taps."""
    S, stem = n_past + n_new, tap.partition("-")[0]
    if stem in ("kq", "kq_soft_max"):
        x = x.reshape(int(t.ne[2]), n_new, -1)[:, :, :S]
        hidden = np.arange(S)[None, :] > (n_past + np.arange(n_new))[:, None]
        x = np.where(hidden, np.float32(0), x)
    elif stem == "cache_v" and t.ne[0] == 1:
        x = x.reshape(-1, n_cells)[:, :S].T
    elif stem in ("cache_k", "cache_v"):
        x = x.reshape(n_cells, -1)[:S]
    return np.ascontiguousarray(x)


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    try:
        record(request)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
