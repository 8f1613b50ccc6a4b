"""Small random folders of each class that is read, in transformers' layout, and what llama.cpp's converter makes of each tensor.

Both are written from transformers' modeling files and llama.cpp's converter, with loops over heads, and not from refmodel's tables.
No two axes agree, so that a swapped one shows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folders
import numpy as np

from refmodel.hf.safetensors import FolderTensor
from refmodel.surgery.hf_write import write_safetensors

V, E, F, H, G, D, L = 50, 22, 26, 6, 2, 10, 3
Hk, Hv, S, K = 3, 9, 8, 4
X, U, Fx, Fs = 7, 5, 16, 18
COMMON = {
    "vocab_size": V,
    "hidden_size": E,
    "intermediate_size": F,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": D,
    "num_hidden_layers": L,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
    "tie_word_embeddings": False,
}
EXPERTS = {"num_experts": X, "num_experts_per_tok": U, "moe_intermediate_size": Fx}
NEXT = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": Hk,
    "linear_num_value_heads": Hv,
    "linear_key_head_dim": S,
    "linear_value_head_dim": S,
    "linear_conv_kernel_dim": K,
    "rms_norm_eps": 1e-6,  # transformers norms queries and keys of the delta rule with it, whatever it is
    "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": 0.6, "mrope_section": [1, 1, 1]},
}


@dataclass(frozen=True)
class Kind:
    """A class of transformers: its name, its model type, its configuration, and the architecture that it is."""

    name: str
    model_type: str
    config: Mapping[str, Any]
    arch: str


KINDS = {
    "llama": Kind("LlamaForCausalLM", "llama", COMMON, "llama"),
    "mistral": Kind("MistralForCausalLM", "mistral", COMMON | {"sliding_window": None}, "llama"),
    "qwen2": Kind("Qwen2ForCausalLM", "qwen2", {**COMMON, "hidden_size": 60, "head_dim": None}, "qwen2"),
    "qwen3": Kind("Qwen3ForCausalLM", "qwen3", COMMON, "qwen3"),
    "qwen3moe": Kind("Qwen3MoeForCausalLM", "qwen3_moe", COMMON | EXPERTS | {"norm_topk_prob": True}, "qwen3moe"),
    "gemma3": Kind(
        "Gemma3ForCausalLM",
        "gemma3_text",
        {
            **COMMON,
            "num_hidden_layers": 7,
            "sliding_window": 4,
            "query_pre_attn_scalar": D,
            "rope_parameters": None,
            "tie_word_embeddings": True,
        },
        "gemma3",
    ),
    "qwen3next": Kind(
        "Qwen3NextForCausalLM", "qwen3_next", COMMON | NEXT | EXPERTS | {"shared_expert_intermediate_size": Fs}, "qwen3next"
    ),
    "qwen35": Kind("Qwen3_5ForCausalLM", "qwen3_5_text", COMMON | NEXT, "qwen35"),
    "qwen35moe": Kind(
        "Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", COMMON | NEXT | EXPERTS | {"shared_expert_intermediate_size": Fs}, "qwen35moe"
    ),
}
HYBRID = {"qwen3next", "qwen35", "qwen35moe"}
ADDS_ONE = HYBRID | {"gemma3"}


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a folder of that kind."""
    k = KINDS[kind]
    return {"architectures": [k.name], "model_type": k.model_type, **k.config, **changes}


def layer_shapes(kind: str, i: int, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer by their names in it."""
    width, kv = config["hidden_size"], config["num_key_value_heads"]
    full = kind not in HYBRID or config["layer_types"][i] == "full_attention"
    out: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    if kind == "gemma3":
        out |= {f"{name}_feedforward_layernorm.weight": (width,) for name in ("pre", "post")}
    if full:
        out |= {
            f"self_attn.{n}_proj.weight": (heads * D, width)
            for n, heads in (("q", (2 if kind in HYBRID else 1) * H), ("k", kv), ("v", kv))
        }
        out |= {"self_attn.o_proj.weight": (width, H * D)}
    else:
        C, values = 2 * Hk * S + Hv * S, Hv * S
        apart = {
            "in_proj_qkv.weight": (C, E),
            "in_proj_z.weight": (values, E),
            "in_proj_a.weight": (Hv, E),
            "in_proj_b.weight": (Hv, E),
        }
        joined = {"in_proj_qkvz.weight": (C + values, E), "in_proj_ba.weight": (2 * Hv, E)}
        rest = {"conv1d.weight": (C, 1, K), "A_log": (Hv,), "dt_bias": (Hv,), "norm.weight": (S,), "out_proj.weight": (E, values)}
        out |= {f"linear_attn.{name}": shape for name, shape in ((joined if kind == "qwen3next" else apart) | rest).items()}
    if full and kind == "qwen2":
        out |= {f"self_attn.{n}_proj.bias": (heads * D,) for n, heads in (("q", H), ("k", kv), ("v", kv))}
    if full and kind not in ("llama", "mistral", "qwen2"):
        out |= {"self_attn.q_norm.weight": (D,), "self_attn.k_norm.weight": (D,)}
    if kind not in ("qwen3moe", "qwen3next", "qwen35moe"):
        return out | {"mlp.gate_proj.weight": (F, width), "mlp.up_proj.weight": (F, width), "mlp.down_proj.weight": (width, F)}
    out |= {"mlp.gate.weight": (X, E)}
    for x in range(X):
        out |= {f"mlp.experts.{x}.{n}_proj.weight": (E, Fx) if n == "down" else (Fx, E) for n in ("gate", "up", "down")}
    if kind != "qwen3moe":
        out |= {f"mlp.shared_expert.{n}_proj.weight": (E, Fs) if n == "down" else (Fs, E) for n in ("gate", "up", "down")}
        out |= {"mlp.shared_expert_gate.weight": (1, E)}
    return out


def values(kind: str, config: Mapping[str, Any], prefix: str = "model.", seed: int = 3) -> dict[str, np.ndarray]:
    """Name -> values of all tensors, float32."""
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (V, config["hidden_size"])}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"{prefix}layers.{i}.{name}": shape for name, shape in layer_shapes(kind, i, config).items()}
    shapes[f"{prefix}norm.weight"] = (config["hidden_size"],)
    if kind != "gemma3":
        shapes["lm_head.weight"] = (V, config["hidden_size"])
    r, out = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        scale = 0.3 if len(shape) == 1 or "conv1d" in name else shape[-1] ** -0.5
        level = 1.0 if name.endswith("norm.weight") and (kind not in ADDS_ONE or "linear_attn" in name) else 0.0
        out[name] = (scale * r.standard_normal(shape) + level).astype(np.float32)
    return out


def neighbours(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of heads whose halves form pairs, with the two of a pair next to each other."""
    half = len(x) // heads // 2
    return np.stack([x[h * 2 * half + side * half + i] for h in range(heads) for i in range(half) for side in range(2)])


def tiled(x: np.ndarray, width: int) -> np.ndarray:
    """Value heads of `width` rows each: copy 0 of every key head, then copy 1, and so on."""
    repeat = Hv // Hk
    rows = [(k * repeat + copy) * width + i for copy in range(repeat) for k in range(Hk) for i in range(width)]
    return x[rows]


def queries_keys_values_gates(x: np.ndarray) -> list[np.ndarray]:
    """Rows that are key head by key head its query, its key, its values and their gates, sorted by what they are."""
    out, at, repeat = [[], [], [], []], 0, Hv // Hk
    for _ in range(Hk):
        for part, size in enumerate((S, S, repeat * S, repeat * S)):
            out[part].extend(range(at, at + size))
            at += size
    return [x[rows] for rows in out]


def expected(kind: str, w: Mapping[str, np.ndarray], config: Mapping[str, Any], prefix: str = "model.") -> dict[str, np.ndarray]:
    """What llama.cpp's converter makes of a folder: name -> values."""
    one = 1 if kind in ADDS_ONE else 0
    out = {
        "token_embd.weight": w[f"{prefix}embed_tokens.weight"],
        "output_norm.weight": w[f"{prefix}norm.weight"] + np.float32(one),
    }
    if "lm_head.weight" in w:
        out["output.weight"] = w["lm_head.weight"]
    for i in range(config["num_hidden_layers"]):
        layer = {name.removeprefix(f"{prefix}layers.{i}."): x for name, x in w.items() if name.startswith(f"{prefix}layers.{i}.")}
        out |= {f"blk.{i}.{name}": x for name, x in expected_layer(kind, layer, one).items()}
    return out


def expected_layer(kind: str, w: Mapping[str, np.ndarray], one: int) -> dict[str, np.ndarray]:
    """The same of a layer, by names in it."""
    second = {"gemma3": "post_attention_norm"}.get(kind, "post_attention_norm" if kind in HYBRID else "ffn_norm")
    out = {
        "attn_norm.weight": w["input_layernorm.weight"] + np.float32(one),
        f"{second}.weight": w["post_attention_layernorm.weight"] + np.float32(one),
    }
    if kind == "gemma3":
        out |= {
            "ffn_norm.weight": w["pre_feedforward_layernorm.weight"] + 1,
            "post_ffw_norm.weight": w["post_feedforward_layernorm.weight"] + 1,
        }
    for ours, theirs in (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj"), ("attn_output", "o_proj")):
        for end in ("weight", "bias"):
            if (name := f"self_attn.{theirs}.{end}") in w:
                turned = kind in ("llama", "mistral") and ours in ("attn_q", "attn_k")
                out[f"{ours}.{end}"] = neighbours(w[name], H if ours == "attn_q" else G) if turned else w[name]
    for name in ("q_norm", "k_norm"):
        if f"self_attn.{name}.weight" in w:
            out[f"attn_{name}.weight"] = w[f"self_attn.{name}.weight"] + np.float32(one)
    for name in ("gate", "up", "down"):
        if f"mlp.{name}_proj.weight" in w:
            out[f"ffn_{name}.weight"] = w[f"mlp.{name}_proj.weight"]
        if f"mlp.experts.0.{name}_proj.weight" in w:
            out[f"ffn_{name}_exps.weight"] = np.stack([w[f"mlp.experts.{x}.{name}_proj.weight"] for x in range(X)])
        if f"mlp.shared_expert.{name}_proj.weight" in w:
            out[f"ffn_{name}_shexp.weight"] = w[f"mlp.shared_expert.{name}_proj.weight"]
    same = {"mlp.gate.weight": "ffn_gate_inp.weight", "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight"}
    out |= {ours: w[theirs] for theirs, ours in same.items() if theirs in w}
    return out | (delta(kind, w) if "linear_attn.A_log" in w else {})


def delta(kind: str, w: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gated delta rule's tensors."""
    w = {name.removeprefix("linear_attn."): x for name, x in w.items() if name.startswith("linear_attn.")}
    decay, conv = -np.exp(w["A_log"].astype(np.float64)).astype(np.float32), w["conv1d.weight"][:, 0]
    if kind == "qwen3next":
        q, k, v, z = queries_keys_values_gates(w["in_proj_qkvz.weight"])
        return {
            "attn_qkv.weight": np.concatenate([q, k, v]),
            "attn_gate.weight": z,
            "ssm_ba.weight": w["in_proj_ba.weight"],
            "ssm_conv1d.weight": conv,
            "ssm_a": decay,
            "ssm_dt.bias": w["dt_bias"],
            "ssm_norm.weight": w["norm.weight"],
            "ssm_out.weight": w["out_proj.weight"],
        }
    keys = 2 * Hk * S
    return {
        "attn_qkv.weight": np.concatenate([w["in_proj_qkv.weight"][:keys], tiled(w["in_proj_qkv.weight"][keys:], S)]),
        "attn_gate.weight": tiled(w["in_proj_z.weight"], S),
        "ssm_alpha.weight": tiled(w["in_proj_a.weight"], 1),
        "ssm_beta.weight": tiled(w["in_proj_b.weight"], 1),
        "ssm_conv1d.weight": np.concatenate([conv[:keys], tiled(conv[keys:], S)]),
        "ssm_a": tiled(decay, 1),
        "ssm_dt.bias": tiled(w["dt_bias"], 1),
        "ssm_norm.weight": w["norm.weight"],
        "ssm_out.weight": tiled(w["out_proj.weight"].T, S).T,
    }


def build(path: Path, kind: str, dtype: str = "F32", seed: int = 3, **changes: Any) -> Path:
    """Write a folder of that kind; `changes` are of its configuration."""
    config = config_of(kind, **changes)
    return folders.write(path, config, values(kind, config, seed=seed), dtype)


def stored(w: Mapping[str, np.ndarray], dtype: str = "F32") -> list[FolderTensor]:
    """Values as tensors of a safetensors file."""
    return [FolderTensor(name, dtype, x.shape, folders.packed(x, dtype)) for name, x in w.items()]


def rewrite(path: Path, change: Any, dtype: str = "F32") -> Path:
    """Write a folder's weights again after `change` of their values, a dict; its configuration stays."""
    w = values(next(k for k, v in KINDS.items() if v.name in config(path)["architectures"]), config(path))
    change(w)
    with (path / "model.safetensors").open("wb") as file:
        write_safetensors(file, stored(w, dtype), lambda count: None)
    return path


def config(path: Path) -> dict[str, Any]:
    """The config.json of a folder."""
    found: dict[str, Any] = json.loads((path / "config.json").read_text())
    return found
