"""What a config.json says in one spelling: RoPE's numbers wherever they are, and the defaults of transformers' classes.

Source: transformers 5.23.0's modeling_rope_utils.py and the configurations that convert them in a way of their own.
"""

import json
import re
from collections.abc import Callable, Mapping
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
    (old, new), odd = objects(part)
    by_kind = {kind: new[kind] for kind in KINDS if isinstance(new.get(kind), dict)}
    shared = {"rope_theta": part.get("rope_theta", base), "partial_rotary_factor": part.get("partial_rotary_factor")}
    if model_type in TWO:
        first, key, second = TWO[model_type]
        flat = {} if by_kind else new
        full = {"rope_theta": part.get("rope_theta", first)} | flat | by_kind.get("full_attention", {}) | old
        sliding = {"rope_theta": part.get(key, second)} | by_kind.get("sliding_attention", {})
        return {"full_attention": numbers(full), "sliding_attention": numbers(sliding)} | odd
    if by_kind:
        return {kind: numbers(shared | values) for kind, values in by_kind.items()} | odd
    return numbers(shared | (old or new)) | contradiction(part, old, new) | odd


def objects(part: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """rope_scaling and rope_parameters, empty where they are absent or no objects; and those that are something else."""
    said = {key: part.get(key) or {} for key in ("rope_scaling", "rope_parameters")}
    odd = {key: value for key, value in said.items() if not isinstance(value, dict)}
    return [{} if key in odd else value for key, value in said.items()], odd


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


Home = Mapping[str, Any]


def _share(home: Home) -> Any:
    return home["hidden_size"] // home["num_attention_heads"]


# What a class works out from other values where its configuration has no such key, or null.
DERIVED: tuple[tuple[str, str, Callable[[Home], Any]], ...] = (
    (
        "num_key_value_heads",
        "afmoe apertus arcee aria_text cohere cohere2 cohere2_moe cohere_compass_text deepseek_v2 flex_olmo granite "
        "granite4_vision_text granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_dense hunyuan_v1_moe "
        "hunyuan_vl_text hyperclovax jais2 llama nanochat olmo olmo2 olmo3 olmo_hybrid olmoe phi phi3 recurrent_gemma",
        lambda home: home["num_attention_heads"],
    ),
    (
        "head_dim",
        "arcee aria_text cohere2 cohere_compass_text hyperclovax jais2 llama mistral nemotron qwen3_vl_moe_text recurrent_gemma",
        _share,
    ),
    ("head_dim", "axk1 deepseek_v2 deepseek_v3 deepseek_v32 youtu", lambda home: home["qk_rope_head_dim"]),
    ("head_dim", "mistral4", lambda home: home["qk_nope_head_dim"] + home["qk_rope_head_dim"]),
    (
        "qk_head_dim",
        "axk1 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite mistral4 youtu",
        lambda home: home["qk_nope_head_dim"] + home["qk_rope_head_dim"],
    ),
    ("partial_rotary_factor", "fuyu glm glm4 glm4_moe nemotron persimmon phi recurrent_gemma", lambda home: 0.5),
    ("partial_rotary_factor", "qwen3_5_moe_text qwen3_5_text qwen3_next stablelm", lambda home: 0.25),
    ("attention_multiplier", "hyperclovax", lambda home: _share(home) ** -0.5),
    ("ffn_hidden_size", "falcon", lambda home: 4 * home["hidden_size"]),
    ("num_kv_heads", "falcon", lambda home: home["num_attention_heads"]),
    ("linear_num_key_heads", "olmo_hybrid", lambda home: home["num_attention_heads"]),
    ("linear_num_value_heads", "olmo_hybrid", lambda home: home["num_attention_heads"]),
    ("linear_key_head_dim", "olmo_hybrid", lambda home: int(0.75 * home["hidden_size"] / home["num_attention_heads"])),
    ("linear_value_head_dim", "olmo_hybrid", lambda home: 2 * int(0.75 * home["hidden_size"] / home["num_attention_heads"])),
    ("word_embed_proj_dim", "opt", lambda home: home["hidden_size"]),
    ("lru_width", "recurrent_gemma", lambda home: home["hidden_size"]),
    ("mamba_dt_rank", "jamba", lambda home: -(-home["hidden_size"] // 16)),
    ("time_step_rank", "falcon_mamba mamba mamba2", lambda home: -(-home["hidden_size"] // 16)),
    ("mamba_d_head", "bamba granitemoehybrid", lambda home: home["mamba_expand"] * home["hidden_size"] // home["mamba_n_heads"]),
    ("mamba_d_head", "falcon_h1", lambda home: home["mamba_d_ssm"] // home["mamba_n_heads"]),
    ("moe_layer_end_index", "ernie4_5_moe", lambda home: home["num_hidden_layers"] - 1),
)


@cache
def rules() -> dict[tuple[str, str], Callable[[Home], Any]]:
    """(Model type, key) -> what the class takes for the key, from the other values."""
    return {(name, key): rule for key, names, rule in DERIVED for name in names.split()}


@cache
def defaults() -> dict[str, Any]:
    """Model type -> key -> the class's default, of keys that it does not derive from others."""
    held = json.loads(DEFAULTS.read_text())
    common, found = held.pop("*"), {}
    for name, (usual, own) in held.items():
        every = {key: common[key] for key in usual.split()} | own
        found[name] = {key: value for key, value in every.items() if (name, key) not in rules()}
    return found


def default(key: str, model_type: str, home: Home | None = None) -> Any:
    """The value that a class takes if its configuration has no such key; None if that is unknown.

    home  the other values, of which a class derives some
    """
    usual, rule = defaults().get(model_type, {}), rules().get((model_type, key))
    if rule is None:
        return usual.get(key)
    try:
        return rule({**usual, **(home or {})})
    except (KeyError, TypeError, ZeroDivisionError):  # values that are missing, or no numbers
        return None


# How objects are named that classes read; MLX's weights are packed as `quantization` says.
READ_OBJECTS = re.compile(
    r"(args|attention|cfg|config|decoder|dict|encoder|fn|head|kwargs|map|module|parameters|params|quantization|rates|scaling)$"
)


def foreign(key: str, part: Mapping[str, Any], model_type: str) -> bool:
    """Whether a key of a part is an object of another program, such as what a tool says of how it made the folder.

    No class has such an object; code in the folder may.
    """
    named = READ_OBJECTS.search(key) or key == "rys_relayer"
    return isinstance(part[key], dict) and not named and model_type in defaults() and "auto_map" not in part
