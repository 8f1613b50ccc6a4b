"""How versions of llama.cpp lay out the structures that are passed to it: known layouts, and those that bindings describe.

Source: llama.cpp include/llama.h.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from ctypes import Structure
from dataclasses import dataclass
from typing import Any

from ..errors import OracleError

Fields = Sequence[tuple[str, str]]  # name, and type: a letter (signed, unsigned, float, bool, pointer) and a number of bytes

TYPES: Mapping[str, Any] = {
    **{f"s{n}": kind for n, kind in ((1, ctypes.c_int8), (2, ctypes.c_int16), (4, ctypes.c_int32), (8, ctypes.c_int64))},
    **{f"u{n}": kind for n, kind in ((1, ctypes.c_uint8), (2, ctypes.c_uint16), (4, ctypes.c_uint32), (8, ctypes.c_uint64))},
    **{"f4": ctypes.c_float, "f8": ctypes.c_double, "b1": ctypes.c_bool, "p8": ctypes.c_void_p},
}


def fields(text: str) -> Fields:
    """Fields from words: a type, then the names that have it, then the next type."""
    kind, found = "", list[tuple[str, str]]()
    for word in text.split():
        if word in TYPES:
            kind = word
        else:
            found.append((word, kind))
    return found


def structure(name: str, layout: Fields) -> type[Structure]:
    """The ctypes class of a structure of these fields. KeyError for a type that is not known here."""
    return type(name, (Structure,), {"_fields_": [(field, TYPES[kind]) for field, kind in layout]})


@dataclass(frozen=True)
class Layout:
    """The structures of one llama.cpp.

    name     whose they are, for people; empty for known ones, which are many versions' own
    model    llama_model_params
    context  llama_context_params
    batch    llama_batch, the tokens of one call
    """

    name: str
    model: type[Structure]
    context: type[Structure]
    batch: type[Structure]


def described(answer: Mapping[str, Any] | None) -> Layout | None:
    """The layout in an answer of describe.py; None for none.

    OracleError for one that cannot be: another machine's, or fields that are unknown.
    """
    if answer is None:
        return None
    name = f"llama-cpp-python {answer['package']}".strip()
    shapes = []
    for which in ("llama_model_params", "llama_context_params", "llama_batch"):
        said = answer["structures"][which]
        try:
            shapes.append(structure(which, said["fields"]))
        except KeyError as error:
            raise OracleError(f"{name}: a field of its {which} has a type that is not known here, {error}") from None
        if ctypes.sizeof(shapes[-1]) != said["size"]:
            raise OracleError(f"{name}: its {which} has {said['size']} bytes there and {ctypes.sizeof(shapes[-1])} here")
    return Layout(name, *shapes)


POINTERS = "p8 tensor_split progress_callback progress_callback_user_data kv_overrides"
START = "p8 devices tensor_buft_overrides s4 n_gpu_layers split_mode"
# The structures of versions that were run here, the newest first: each is of all versions from then on until the next.
MODELS = {
    "2026-09": f"""{START} load_mode lazy_mode main_gpu {POINTERS}
        b1 vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp""",
    "b10361": f"""{START} load_mode main_gpu {POINTERS}
        b1 vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp""",
    "b8121": f"""{START} main_gpu {POINTERS}
        b1 vocab_only use_mmap use_direct_io use_mlock check_tensors use_extra_bufts no_host no_alloc""",
    "b7347": f"""{START} main_gpu {POINTERS}
        b1 vocab_only use_mmap use_mlock check_tensors use_extra_bufts no_host""",
    "2025-08": f"""{START} main_gpu {POINTERS}
        b1 vocab_only use_mmap use_mlock check_tensors use_extra_bufts""",
}
SIZES = "u4 n_ctx n_batch n_ubatch n_seq_max"
THREADS = "s4 n_threads n_threads_batch"
KINDS = "rope_scaling_type pooling_type attention_type"
FLOATS = """
    f4 rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow
    u4 yarn_orig_ctx f4 defrag_thold
    p8 cb_eval cb_eval_user_data s4 type_k type_v
"""
ABORT = "p8 abort_callback abort_callback_data b1 embeddings offload_kqv"
SWITCHES = "no_perf op_offload swa_full kv_unified"
SAMPLERS = "p8 samplers u8 n_samplers"
HEAD = f"{SIZES} n_rs_seq n_outputs_max n_outputs_max_per_seq {THREADS} ctx_type {KINDS} flash_attn_type {FLOATS}"
TAIL = f"{ABORT} {SWITCHES} {SAMPLERS} p8 ctx_other"
CONTEXTS = {
    "b11739": f"{HEAD} u8 moe_cache_size {TAIL}",
    "b10361": f"{HEAD} {TAIL}",
    "b10068": f"{SIZES} n_rs_seq n_outputs_max {THREADS} ctx_type {KINDS} flash_attn_type {FLOATS} {TAIL}",
    "b8121": f"{SIZES} {THREADS} {KINDS} flash_attn_type {FLOATS} {ABORT} {SWITCHES} {SAMPLERS}",
    "b7347": f"{SIZES} {THREADS} {KINDS} flash_attn_type {FLOATS} {ABORT} {SWITCHES}",
    "2025-08": f"{SIZES} {THREADS} {KINDS} {FLOATS} {ABORT} flash_attn {SWITCHES}",
}
BATCH = structure("llama_batch", fields("s4 n_tokens p8 token embd pos n_seq_id seq_id logits"))
NAMES = {"0c1e570": "llama-cpp-python 0.3.36", "0ad4a86": "node-llama-cpp 3.22.1", "0ce8cd1": "b11739"}  # of commits


# What llama.cpp's own defaults are in every version so far. A layout that reads something else there is not the library's.
DEFAULTS: Mapping[str, Any] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "flash_attn": False,
    "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_orig_ctx": 0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "n_samplers": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
}


def is_default(name: str, kind: str, raw: bytes) -> bool:
    """Whether bytes may be the default of a field: no pointer is set, a bool is 0 or 1, a float is one that people write."""
    if kind[0] == "p":
        return not any(raw)
    if kind[0] == "b" and raw not in (b"\0", b"\1"):
        return False
    number = TYPES[kind].from_buffer_copy(raw).value
    if kind[0] != "f":
        return bool(number == DEFAULTS.get(name, number) and abs(number) < 1 << 24)
    return bool(number == DEFAULTS.get(name, number) and (number == 0 or 1e-3 <= abs(number) <= 1e6))


def misread(shape: type[Structure], raw: bytes) -> Iterator[str]:
    """The fields that cannot be where this structure has them, as the defaults `raw` of the library show."""
    names = {kind: name for name, kind in TYPES.items()}
    for name, kind in shape._fields_:  # type: ignore[misc]
        field = getattr(shape, name)
        piece = raw[field.offset : field.offset + field.size]
        if len(piece) < field.size or not is_default(name, names[kind], piece):
            yield name
