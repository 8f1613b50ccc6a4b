"""Make golden/hf/: a random Qwen3.5 text checkpoint, its logits by transformers in float32, and the same checkpoint as a GGUF.

Needs torch and transformers 5.23.0 beside the gguf package; no other part of the project does.

    python golden/make_hf.py
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

HERE = Path(__file__).parent
TOKENS = [3, 77, 12, 12, 140, 9, 61, 0, 33, 99, 5, 150, 18]
KINDS = ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"]
Hk, Hv, S, HEADS, GROUPS, D = 2, 6, 8, 4, 2, 16

CONFIG = {
    "vocab_size": 160,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": len(KINDS),
    "layer_types": KINDS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": D,
    "linear_num_key_heads": Hk,
    "linear_num_value_heads": Hv,
    "linear_key_head_dim": S,
    "linear_value_head_dim": S,
    "linear_conv_kernel_dim": 4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    },
}


def checkpoint() -> Qwen3_5ForCausalLM:
    """Random weights; norms and gates away from their initial values, so that a wrong one shows."""
    torch.manual_seed(17)
    model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**CONFIG)).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.2 if p.ndim == 1 else 1.5 * p.shape[-1] ** -0.5 if "conv1d" not in name else 0.5
            p.copy_(torch.randn(p.shape) * scale + (1.0 if name.endswith("linear_attn.norm.weight") else 0.0))
    return model


def tiled(x: np.ndarray, axis: int) -> np.ndarray:
    """Value heads from grouped order (head = key head · r + copy) to tiled order (copy · Hk + key head) along an axis."""
    x = np.moveaxis(x, axis, 0)
    rest, r = x.shape[1:], Hv // Hk
    x = x.reshape(Hk, r, x.shape[0] // Hv, *rest).swapaxes(0, 1).reshape(-1, *rest)
    return np.moveaxis(x, 0, axis)


def converted(name: str, x: np.ndarray) -> np.ndarray:
    """A checkpoint's tensor as GGUF has it: 1 folded into norms, -exp(A_log), value heads tiled."""
    key = 2 * Hk * S
    if name.endswith("norm.weight") and "linear_attn" not in name:
        return x + 1
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        x = x.reshape(x.shape[0], -1)
        return np.concatenate([x[:key], tiled(x[key:], 0)])
    if name.endswith(("in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight", "dt_bias")):
        return tiled(x, 0)
    if name.endswith("A_log"):
        return tiled(-np.exp(x), 0)
    return tiled(x, 1) if name.endswith("out_proj.weight") else x


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
GLOBALS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def renamed(name: str) -> str:
    if name in GLOBALS:
        return GLOBALS[name]
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{NAMES[rest]}"


def write(model: Qwen3_5ForCausalLM, path: Path) -> None:
    w = gguf.GGUFWriter(path, "qwen35")
    w.add_context_length(512)
    w.add_embedding_length(CONFIG["hidden_size"])
    w.add_block_count(len(KINDS))
    w.add_feed_forward_length(CONFIG["intermediate_size"])
    w.add_head_count(HEADS)
    w.add_head_count_kv(GROUPS)
    w.add_key_length(D)
    w.add_value_length(D)
    w.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(12)
    w.add_array("qwen35.rope.dimension_sections", [2, 2, 2, 0])
    sizes = {"conv_kernel": 4, "inner_size": Hv * S, "state_size": S, "time_step_rank": Hv, "group_count": Hk}
    for key, value in sizes.items():
        w.add_uint32(f"qwen35.ssm.{key}", value)
    w.add_array("qwen35.attention.recurrent_layers", [kind == "linear_attention" for kind in KINDS])
    w.add_tokenizer_model("none")
    w.add_uint32("qwen35.vocab_size", CONFIG["vocab_size"])
    for name, p in model.state_dict().items():
        w.add_tensor(renamed(name), np.ascontiguousarray(converted(name, p.numpy()), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    (HERE / "hf").mkdir(exist_ok=True)
    (HERE / "models").mkdir(exist_ok=True)
    model = checkpoint()
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS])).logits[0].numpy()
    np.save(HERE / "hf" / "qwen35-hf.logits.npy", logits)
    write(model, HERE / "models" / "qwen35-hf.gguf")
    facts = {"tokens": TOKENS, "seed": 17, "torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32"}
    (HERE / "hf" / "qwen35-hf.json").write_text(json.dumps(facts, indent=1) + "\n")
