"""Small random checkpoints of many model types, without the lists that say what a layer is, and copies of them run beside them.

    PYTHON hf_places.py make FOLDER TYPE...     a folder for each; one JSON object a line: {"type", "made" or "why"}
    PYTHON hf_places.py run < requests          for each line {"source", "copy", "map"}: {"differ": names, or "why"}
    PYTHON hf_places.py kinds < requests        for each line {"type", "config"}: the config as the class makes it of that
    PYTHON hf_places.py serve < requests        for each line {"make", "out", "layers", "listed"}: {} or "why"; or as for run;
                                                or {"resave", "out", "dtype", "shard"}: saved again

For a Python with torch and transformers; the suite itself needs neither.
"""

import copy
import importlib.util
import json
import os
import sys
import warnings
from functools import lru_cache
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: E402

spec = importlib.util.spec_from_file_location("hf_child", Path(__file__).parents[1] / "refmodel" / "surgery" / "hf_child.py")
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "sliding_window": 3, "max_position_embeddings": 64, "num_hidden_layers": 7, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "top_k_experts": 2, "moe_intermediate_size": 12, "intermediate_size_mlp": 40,
    "shared_expert_intermediate_size": 12, "moe_num_experts": 4, "moe_k": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "qk_head_dim": 8,
    "query_pre_attn_scalar": 8, "attention_chunk_size": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_heads": 4,
    "mamba_n_groups": 1, "mamba_d_ssm": 64, "mamba_expand": 2, "mamba_dt_rank": 4, "state_size": 8, "time_step_rank": 4,
    "num_heads": 4, "n_groups": 1, "lru_width": 32, "attention_window_size": 3, "ffn_hidden_size": 40, "kv_channels": 8,
    "word_embed_proj_dim": 32, "hidden_size_per_layer_input": 0, "global_head_dim": 8, "moe_num_shared_experts": 1,
    "n_shared_experts": 1, "num_shared_experts": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "rope_scaling": None,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "swa_v_head_dim": 8,
    "partial_rotary_factor": 1.0,
    "index_head_dim": 8, "index_n_heads": 2, "index_topk": 4, "block_ff_dim": 40, "conv_dim": 32, "conv_L_cache": 3,
    "shared_intermediate_size": 12, "moe_intermediate_size_": 12, "prefix_dense_intermediate_size": 40,
    "attention_multiplier": 0.3, "block_auto_adjust_ff_dim": False,
}  # fmt: skip
OWN = {  # what a type needs beside these
    "phi": {"partial_rotary_factor": 0.5},
    "stablelm": {"partial_rotary_factor": 0.5},
    "gpt_neox": {"partial_rotary_factor": 0.5},
    "llama4_text": {"interleave_moe_layer_step": 2},
    "qwen2_moe": {"decoder_sparse_step": 2},
    "qwen3_moe": {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 3},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 3},
    "smollm3": {"use_sliding_window": True},
    "dots1": {"max_window_layers": 3, "first_k_dense_replace": 1},
    "deepseek_v3": {"first_k_dense_replace": 2, "num_key_value_heads": 4},
    "opt": {"ffn_dim": 40},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 3 + ["linear_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 3 + ["conv"]},
    "lfm2": {"full_attn_idxs": [2, 5]},
    "bamba": {"attn_layer_indices": [1, 4]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "mamba2": {"num_heads": 8},
    **{name: {"num_key_value_heads": 4} for name in ("axk1", "deepseek_v2", "deepseek_v32", "glm4_moe_lite", "youtu")},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "phimoe": {"sliding_window": None},
    "falcon": {"ffn_hidden_size": 128},
}
LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers", "moe_layers", "layers_block_type", "layer_rope_theta")


def config_of(name, layers):
    cls = CONFIG_MAPPING[name]
    known = vars(cls())
    own = isinstance(getattr(cls, "head_dim", None), property) or "qk_rope_head_dim" in known
    given = {k: v for k, v in SMALL.items() if k in known or (k == "head_dim" and not own)}
    given |= OWN.get(name, {}) | {"num_hidden_layers": layers}
    return cls(**given)


def make(out, name, layers=7, listed=False, old=False):
    """A folder, as the Hub has it: without the lists of what a layer is, or with them; `old`: as older versions wrote it."""
    torch.manual_seed(5)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config_of(name, layers))](config_of(name, layers)).float()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape) + (1.0 if p.ndim == 1 else 0.0))
    model.save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    kept = OWN.get(name, {})
    config = {k: v for k, v in config.items() if listed or k not in LISTS or k in kept}
    path.write_text(json.dumps(as_before(config, name) if old else config))


def as_before(config, name):
    """A configuration in the spelling of older versions, without what the class takes by itself."""
    usual = CONFIG_MAPPING[name]().to_dict()
    rope = config.pop("rope_parameters", None) or {}
    kept = ("model_type", "architectures", "num_hidden_layers", "vocab_size", "hidden_size")
    out = {k: v for k, v in config.items() if k in kept or k not in usual or usual[k] != v}
    full, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    flat = {k: v for k, v in full.items() if not isinstance(v, dict)}
    base = flat.pop("rope_theta", None)
    rotary = flat.pop("partial_rotary_factor", None)
    out |= {"rope_theta": base} if base is not None else {}
    out |= {"partial_rotary_factor": rotary} if rotary is not None else {}
    out |= {"rope_local_base_freq": local["rope_theta"]} if name == "gemma3_text" and "rope_theta" in local else {}
    if flat.get("rope_type", "default") != "default":
        out["rope_scaling"] = {("type" if k == "rope_type" else k): v for k, v in flat.items()}
    out["torch_dtype"] = out.pop("dtype", "float32")
    return out


@lru_cache(maxsize=4)
def source_model(folder):
    return child.loaded(folder, "float32")


def outputs(folder, layers):
    model = child.loaded(folder, "float32") if layers is None else copy.deepcopy(source_model(folder))
    if layers is not None:
        child.rearrange(model, layers)
    state, kept = {}, []
    with torch.inference_mode():
        for tokens in ([5, 17, 40, 3, 88, 60, 9, 31], [11], [70]):
            done = model(input_ids=torch.tensor([tokens]), use_cache=True, **state)
            state = {"past_key_values": done.past_key_values} if hasattr(done, "past_key_values") else {}
            kept.append(done.logits)
    return torch.cat([x.flatten() for x in kept])


def compare(request):
    a, b = outputs(request["source"], request["map"]), outputs(request["copy"], None)
    return {"apart": float(((a - b).norm() / a.norm()).item()), "finite": bool(torch.isfinite(a).all())}


def as_made(request):
    c = CONFIG_MAPPING[request["type"]](**request["config"])
    return {k: v for k, v in vars(c).items() if isinstance(v, (list, int, float, str, bool, type(None)))}


def resave(request):
    """A folder loaded and saved again by transformers, in the same type or another."""
    model = child.loaded(request["resave"], request.get("dtype", "auto"))
    model.save_pretrained(request["out"], max_shard_size=request.get("shard", "50GB"))
    return {}


def served(request):
    if "make" not in request:
        return resave(request) if "resave" in request else compare(request)
    make(Path(request["out"]), request["make"], request["layers"], request["listed"], request.get("old", False))
    return {}


def each(do, requests):
    for line in requests:
        try:
            said = do(json.loads(line))
        except Exception as error:  # whatever it is, it is an outcome
            said = {"why": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(said), flush=True)


def made(out, name):
    try:
        make(out / name, name)
        return {"type": name, "made": True}
    except Exception as error:
        return {"type": name, "why": f"{type(error).__name__}: {str(error)[:300]}"}


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["make", out, *names]:
            for name in names:
                print(json.dumps(made(Path(out), name)), flush=True)
        case ["run"]:
            each(compare, sys.stdin)
        case ["serve"]:
            each(served, sys.stdin)
        case ["kinds"]:
            each(as_made, sys.stdin)
    assert transformers
