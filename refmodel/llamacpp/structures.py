"""The C structures and functions of llama.cpp, by build, and a library that is loaded and held against them.

Source: llama.cpp include/llama.h, ggml/include/ggml.h, ggml-backend.h.
"""

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OracleError

CALLBACK = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)


class Tensor(Structure):
    """struct ggml_tensor: an array of ne elements, nb bytes apart, the fastest axis first."""

    _fields_ = (
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
        ("extra", c_void_p),
        ("padding", c_char * 8),
    )


class ModelParams(Structure):
    """struct llama_model_params."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        *((name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")),
    )


CONTEXT_HEAD: tuple[tuple[str, Any], ...] = (
    *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
    *((name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
    *((name, c_int32) for name in ("n_threads", "n_threads_batch")),
    *((name, c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type")),
    *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor")),
    *((name, c_float) for name in ("yarn_beta_fast", "yarn_beta_slow")),
    ("yarn_orig_ctx", c_uint32),
    ("defrag_thold", c_float),
    ("cb_eval", CALLBACK),
    ("cb_eval_user_data", c_void_p),
    ("type_k", c_int),
    ("type_v", c_int),
)
CONTEXT_TAIL: tuple[tuple[str, Any], ...] = (
    ("abort_callback", c_void_p),
    ("abort_callback_data", c_void_p),
    *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")),
    ("samplers", c_void_p),
    ("n_samplers", c_size_t),
    ("ctx_other", c_void_p),
)


class ContextParams(Structure):
    """struct llama_context_params."""

    _fields_ = CONTEXT_HEAD + CONTEXT_TAIL


class ContextParamsMoe(Structure):
    """struct llama_context_params of builds that have a cache of experts."""

    _fields_ = (*CONTEXT_HEAD, ("moe_cache_size", c_size_t), *CONTEXT_TAIL)


class Batch(Structure):
    """struct llama_batch: the tokens of one call."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


@dataclass(frozen=True)
class Layout:
    """What is known of one build.

    name     for people
    context  its llama_context_params
    """

    name: str
    context: type[Structure]


# (ggml_version(), first seven digits of ggml_commit()) -> layout. A build that is not here is refused.
LAYOUTS: dict[tuple[str, str], Layout] = {
    ("0.25.1", "0ad4a86"): Layout("node-llama-cpp 3.22.1", ContextParams),
    ("0.25.3", "0c1e570"): Layout("llama-cpp-python 0.3.36", ContextParams),
    ("0.27.0", "0ce8cd1"): Layout("b11739", ContextParamsMoe),
}
# What a build of a known layout says about itself; if it does not, the layout is not what it seems.
CONTEXT_DEFAULTS: dict[str, Any] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_threads": 4,
    "flash_attn_type": -1,
    "type_k": 1,
    "type_v": 1,
    "abort_callback": None,
    "embeddings": False,
    "samplers": None,
    "n_samplers": 0,
}
TENSOR_OVERHEAD = 32 + ctypes.sizeof(Tensor)  # ggml_tensor_overhead(): struct ggml_object and the tensor


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_version": (c_char_p, []),
    "ggml_commit": (c_char_p, []),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_op_desc": (c_char_p, [c_void_p]),
    "ggml_backend_load": (c_void_p, [c_char_p]),
    "llama_backend_init": (None, []),
    "llama_print_system_info": (c_char_p, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
}


class Api:
    """The functions of one llama.cpp, with their types.

    lib    the loaded library
    build  what it reports about itself: name, ggml (its version), commit, features, kernels
    path   of the library, for messages
    """

    def __init__(self, files: Sequence[str], variant: str) -> None:
        """Load `files` in order (the last is libllama), then the CPU kernels `variant`, if any. OracleError if it is not known."""
        self.path = files[-1]
        try:
            self.lib = [ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL) for file in files][-1]
            self._declare(SIGNATURES)
        except (OSError, AttributeError) as error:
            raise OracleError(
                f"{self.path}: cannot be loaded as a llama.cpp ({error}); give the libllama.so of a whole build"
            ) from None
        version, commit = self.lib.ggml_version().decode(), self.lib.ggml_commit().decode()
        layout = LAYOUTS.get((version, commit[:7]))
        if layout is None:
            known = ", ".join(f"{layout.name} (ggml {v}, commit {c})" for (v, c), layout in LAYOUTS.items())
            found = f"ggml {version}, commit {commit}"
            raise OracleError(f"{self.path}: is {found}, whose structures are not known here; known: {known}; install one of these")
        self.build = {"name": layout.name, "ggml": version, "commit": commit}
        by_value = layout.context
        self._declare({"llama_context_default_params": (by_value, []), "llama_init_from_model": (c_void_p, [c_void_p, by_value])})
        self._verify(layout)
        if variant:
            self._load_kernels(variant)
        said = self.lib.llama_print_system_info().decode()
        self.build["features"] = " ".join(sorted(re.findall(r"(\w+) = 1", said)))

    def _declare(self, signatures: Mapping[str, tuple[Any, list[Any]]]) -> None:
        for name, (result, arguments) in signatures.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments

    def _verify(self, layout: Layout) -> None:
        """Hold the layout against what the library says of itself. OracleError where they differ."""
        params = self.lib.llama_context_default_params()
        wrong = {name: getattr(params, name) for name, value in CONTEXT_DEFAULTS.items() if getattr(params, name) != value}
        overhead = self.lib.ggml_tensor_overhead()
        names = ", ".join(wrong) or "nothing"
        if wrong or overhead != TENSOR_OVERHEAD:
            raise OracleError(
                f"{self.path}: is not laid out like {layout.name}: it has other defaults for {names}, {overhead} bytes for a "
                "tensor; install a build that is not patched"
            )

    def _load_kernels(self, variant: str) -> None:
        """The first kernels that are registered do all the work, so this comes before llama_backend_init."""
        if not self.lib.ggml_backend_load(os.fsencode(variant)):
            raise OracleError(
                f"{variant}: this processor lacks what these kernels need, or they are of another llama.cpp; give a build "
                "for this processor"
            )
        self.build["kernels"] = Path(variant).stem.removeprefix("libggml-cpu-")
