"""A Qwen3.5 text checkpoint in Hugging Face's layout -> a GGUF that llama.cpp and refmodel run.

    python golden/train/convert.py FOLDER OUT.gguf [--type BF16] [--name NAME] [--license LICENSE]

Four things differ between the two layouts: llama.cpp multiplies by a norm's weight where transformers multiplies by one plus it;
a DeltaNet's decay is stored as -exp(A_log); value heads that share a key head stand next to each other in transformers and Hk
apart in llama.cpp, whose broadcasting is tiled; and the convolution has lost its middle axis. Matrices get the type asked for,
all else is F32.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors

NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type

GLOBALS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.conv1d.weight": "ssm_conv1d.weight",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.out_proj.weight": "ssm_out.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
VECTORS = ("conv1d.weight", "A_log", "dt_bias", "norm.weight")


def renamed(name: str) -> str:
    if name in GLOBALS:
        return GLOBALS[name]
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{NAMES[rest]}"


def tiled(x: np.ndarray, axis: int, config: dict[str, Any]) -> np.ndarray:
    """Value heads from grouped order (head = key head · r + copy) to tiled order (copy · Hk + key head) along an axis."""
    Hk, Hv = config["linear_num_key_heads"], config["linear_num_value_heads"]
    x = np.moveaxis(x, axis, 0)
    rest = x.shape[1:]
    x = x.reshape(Hk, Hv // Hk, x.shape[0] // Hv, *rest).swapaxes(0, 1).reshape(-1, *rest)
    return np.moveaxis(x, 0, axis)


def converted(name: str, x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """A checkpoint's tensor, float32, as GGUF has it."""
    key = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]
    if name.endswith("norm.weight") and "linear_attn" not in name:
        return x + 1
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        x = x.reshape(x.shape[0], -1)
        return np.concatenate([x[:key], tiled(x[key:], 0, config)])
    if name.endswith(("in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight", "dt_bias")):
        return tiled(x, 0, config)
    if name.endswith("A_log"):
        return tiled(-np.exp(x), 0, config)
    return tiled(x, 1, config) if name.endswith("out_proj.weight") else x


def restored(name: str, x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """The way back: what `converted` made, as a checkpoint has it. A GGUF's shapes are the checkpoint's but for conv1d."""
    key = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]
    back = {**config, "linear_num_key_heads": config["linear_num_value_heads"] // config["linear_num_key_heads"]}
    if name.endswith("norm.weight") and "linear_attn" not in name:
        return x - 1
    if name.endswith("conv1d.weight"):
        return np.concatenate([x[:key], tiled(x[key:], 0, back)])[:, None]
    if name.endswith("in_proj_qkv.weight"):
        return np.concatenate([x[:key], tiled(x[key:], 0, back)])
    if name.endswith("A_log"):
        return np.log(-tiled(x, 0, back))
    if name.endswith(("in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight", "dt_bias")):
        return tiled(x, 0, back)
    return tiled(x, 1, back) if name.endswith("out_proj.weight") else x


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the folder's model.safetensors (F32 or BF16) as float32."""
    for name, stored in sorted(safetensors.deserialize((folder / "model.safetensors").read_bytes())):
        data = bytes(stored["data"])
        if stored["dtype"] == "BF16":
            x = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif stored["dtype"] == "F32":
            x = np.frombuffer(data, np.float32)
        else:
            raise SystemExit(f"{folder}: {name} is {stored['dtype']}; only F32 and BF16 are converted")
        yield name, x.reshape(stored["shape"])


def add_sizes(out: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rope, kinds = config["rope_parameters"], config["layer_types"]
    value_heads = config["linear_num_value_heads"]
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_vocab_size(config["vocab_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_key_length(config["head_dim"])
    out.add_value_length(config["head_dim"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(rope["rope_theta"])
    out.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    out.add_array("qwen35.rope.dimension_sections", [*rope["mrope_section"], 0])
    out.add_uint32("qwen35.ssm.conv_kernel", config["linear_conv_kernel_dim"])
    out.add_uint32("qwen35.ssm.inner_size", value_heads * config["linear_value_head_dim"])
    out.add_uint32("qwen35.ssm.state_size", config["linear_key_head_dim"])
    out.add_uint32("qwen35.ssm.time_step_rank", value_heads)
    out.add_uint32("qwen35.ssm.group_count", config["linear_num_key_heads"])
    out.add_array("qwen35.attention.recurrent_layers", [kind == "linear_attention" for kind in kinds])


def add_tokenizer(out: gguf.GGUFWriter, path: Path, eos: int) -> None:
    """The vocabulary of a tokenizer.json in Qwen's cut; without a file, none."""
    if not path.exists():
        return out.add_tokenizer_model("none")
    described = json.loads(path.read_text())
    special = {token["content"] for token in described["added_tokens"] if token["special"]}
    vocabulary = described["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen35")
    out.add_token_list(tokens)
    out.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    out.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
    out.add_eos_token_id(eos)
    out.add_add_bos_token(False)
    return None


def convert(folder: Path, path: Path, kind: str = "F32", facts: dict[str, str] | None = None) -> Path:
    """Write `path`; matrices are F32 or BF16. `facts`: further texts by key, such as general.license."""
    config = json.loads((folder / "config.json").read_text())
    out = gguf.GGUFWriter(path, "qwen35")
    for key, text in (facts or {}).items():
        out.add_string(key, text)
    add_sizes(out, config)
    add_tokenizer(out, folder / "tokenizer.json", config["eos_token_id"])
    for name, x in tensors(folder):
        y = np.ascontiguousarray(converted(name, x, config), np.float32)
        quantized = kind != "F32" and not name.endswith(VECTORS)
        if quantized:
            y = gguf.quantize(y, gguf.GGMLQuantizationType[kind])
        out.add_tensor(renamed(name), y, raw_dtype=gguf.GGMLQuantizationType[kind] if quantized else None)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=["F32", "BF16"], default="BF16")
    parser.add_argument("--name", default="")
    parser.add_argument("--license", default="")
    arguments = parser.parse_args()
    facts = {"general.name": arguments.name, "general.license": arguments.license}
    convert(arguments.folder, arguments.out, arguments.type, {key: text for key, text in facts.items() if text})
