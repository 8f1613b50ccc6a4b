"""What a config.json says in one spelling: RoPE in its old and new form, and the defaults of transformers' classes."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from . import by_place

ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "partial_rotary_factor")
KINDS_OF_ROPE = ("full_attention", "sliding_attention", "chunked_attention", "hybrid", "hybrid_sliding")
DEFAULTS = Path(by_place.__file__).with_name("defaults.json")  # of transformers 5.23.0's classes


def rope(part: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """RoPE's numbers by kind of layer, from rope_theta and rope_scaling, or from rope_parameters."""
    new = part.get("rope_parameters") or {}
    by_kind = {kind: new[kind] for kind in KINDS_OF_ROPE if isinstance(new.get(kind), dict)}
    shared = {
        "rope_theta": part.get("rope_theta", default("rope_theta", model_type)),
        "partial_rotary_factor": part.get("partial_rotary_factor"),
    }
    if by_kind:
        return {kind: numbers(shared | values) for kind, values in by_kind.items()}
    flat = numbers(shared | (part.get("rope_scaling") or {}) | new)
    local = part.get("rope_local_base_freq", default("rope_local_base_freq", model_type))
    if local is None:
        return flat
    return {"full_attention": flat, "sliding_attention": numbers({"rope_theta": local})}


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one RoPE in one spelling."""
    out = {("rope_type" if key == "type" else key): value for key, value in values.items() if value is not None}
    return {"rope_type": "default"} | {key: value for key, value in out.items() if not isinstance(value, dict)}


@cache
def defaults() -> dict[str, Any]:
    """Model type -> key -> the class's default."""
    held = json.loads(DEFAULTS.read_text())
    common = held.pop("*")
    return {name: {key: common[key] for key in usual.split()} | own for name, (usual, own) in held.items()}


def default(key: str, model_type: str) -> Any:
    """The value that a class takes if its configuration has no such key; None if that is unknown."""
    return defaults().get(model_type, {}).get(key)
