"""What a config.json says in one spelling: RoPE's numbers wherever they are, and the defaults of transformers' classes.

Source: transformers 5.23.0's modeling_rope_utils.py and the configurations that convert them in a way of their own.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from . import by_place

DEFAULTS = Path(by_place.__file__).with_name("defaults.json")  # of transformers 5.23.0's classes
KEYS = ("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "partial_rotary_factor")
KINDS = ("full_attention", "sliding_attention", "chunked_attention", "hybrid", "hybrid_sliding")

# Model types with two RoPEs: the base of layers that see all, the key of the others' base, and that base.
TWO: dict[str, tuple[float, str, float]] = {
    "gemma3_text": (1e6, "rope_local_base_freq", 1e4),
    "olmo3": (5e5, "", 5e5),
}
# Model types that name these numbers in their own way: their key -> ours, and what holds without it.
OWN: dict[str, dict[str, tuple[str, float]]] = {
    "gpt_neox": {"rotary_emb_base": ("rope_theta", 1e4), "rotary_pct": ("partial_rotary_factor", 0.25)},
}

SWITCHED = {  # whose window counts only if use_sliding_window is true
    "qwen2", "qwen2_5_omni_text", "qwen2_5_vl_text", "qwen2_moe", "qwen2_vl_text", "qwen3", "qwen3_moe",
}  # fmt: skip


def keys_of(model_type: str) -> set[str]:
    """The keys of a configuration that are RoPE's numbers."""
    return {*KEYS, *OWN.get(model_type, {})}


def rope(part: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """RoPE's numbers, flat, or by kind of layer where a model has two; model_type is empty where no class has its defaults."""
    part, base = renamed(part, model_type), default("rope_theta", model_type)
    old, new = part.get("rope_scaling") or {}, part.get("rope_parameters") or {}
    by_kind = {kind: new[kind] for kind in KINDS if isinstance(new.get(kind), dict)}
    shared = {"rope_theta": part.get("rope_theta", base), "partial_rotary_factor": part.get("partial_rotary_factor")}
    if model_type in TWO:
        first, key, second = TWO[model_type]
        flat = {} if by_kind else new
        full = {"rope_theta": part.get("rope_theta", first)} | flat | by_kind.get("full_attention", {}) | old
        sliding = {"rope_theta": part.get(key, second)} | by_kind.get("sliding_attention", {})
        return {"full_attention": numbers(full), "sliding_attention": numbers(sliding)}
    if by_kind:
        return {kind: numbers(shared | values) for kind, values in by_kind.items()}
    return numbers(shared | (old or new)) | contradiction(part, old, new)


def contradiction(part: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is said a second time, and otherwise: a runtime may read either."""
    said = numbers(old or new)
    other = numbers(new) if old and new else {}
    odd = {f"{key} (in rope_parameters)": value for key, value in other.items() if said.get(key, value) != value}
    top = {key: part[key] for key in ("rope_theta", "partial_rotary_factor") if part.get(key) is not None}
    return odd | {f"{key} (at the top)": value for key, value in top.items() if said.get(key, value) != value}


def renamed(part: Mapping[str, Any], model_type: str) -> Mapping[str, Any]:
    """A part of a configuration with the names of KEYS."""
    own = OWN.get(model_type, {})
    return {name: part.get(key, value) for key, (name, value) in own.items()} | dict(part) if own else part


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one RoPE in one spelling."""
    kind = values.get("rope_type", values.get("type", "default"))
    out = {key: value for key, value in values.items() if value is not None and not isinstance(value, dict) and key != "type"}
    return out | {"rope_type": kind}


@cache
def defaults() -> dict[str, Any]:
    """Model type -> key -> the class's default."""
    held = json.loads(DEFAULTS.read_text())
    common = held.pop("*")
    return {name: {key: common[key] for key in usual.split()} | own for name, (usual, own) in held.items()}


def default(key: str, model_type: str) -> Any:
    """The value that a class takes if its configuration has no such key; None if that is unknown."""
    return defaults().get(model_type, {}).get(key)
