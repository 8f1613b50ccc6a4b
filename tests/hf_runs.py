"""Random checkpoints of the classes that refmodel reads, as transformers writes and runs them, and as llama.cpp converts them.

    PYTHON hf_runs.py make OUT FIRST COUNT CLASS...   OUT/CLASS-SEED for each seed: a checkpoint, and next to its weights
                                                      logits.npy [T, V] in float32 and greedy.npy
    PYTHON hf_runs.py convert SOURCES OUT             OUT/*.gguf: what convert_hf_to_gguf.py of a llama.cpp checkout makes of them
    PYTHON hf_runs.py classes SOURCES                 the architecture of each class that the converter knows, as JSON

For a Python with torch and transformers (and for `convert` with what the converter needs); the suite itself needs neither.
"""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers as t  # noqa: E402

V, TOKENS, GREEDY = 400, 24, 8
CLASSES = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig),
    "mistral": (t.MistralForCausalLM, t.MistralConfig),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config),
    "qwen3moe": (t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig),
    "gemma3": (t.Gemma3ForCausalLM, t.Gemma3TextConfig),
    "gemma3-vision": (t.Gemma3ForConditionalGeneration, t.Gemma3Config),
    "qwen3next": (t.Qwen3NextForCausalLM, t.Qwen3NextConfig),
    "qwen35": (t.Qwen3_5ForCausalLM, t.Qwen3_5TextConfig),
    "qwen35-vision": (t.Qwen3_5ForConditionalGeneration, t.Qwen3_5Config),
    "qwen35moe": (t.Qwen3_5MoeForCausalLM, t.Qwen3_5MoeTextConfig),
}
VISION = {
    "gemma3": {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "qwen35": {
        "depth": 2,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "num_position_embeddings": 16,
    },
}


def one(r, *values):
    """One of some values, each as likely."""
    return values[int(r.integers(len(values)))]


def rope(r, kind, D):
    """RoPE's settings: none, linear, YaRN or llama3."""
    base = {"rope_theta": float(one(r, 500.0, 10000.0, 1e6))}
    if kind in ("qwen3next", "qwen35", "qwen35moe"):
        pairs = one(r, *range(3, D // 2 + 1))
        dealt = [(pairs + 2 - k) // 3 for k in range(3)]  # as they are dealt out in turns
        sections = {} if kind == "qwen3next" else {"mrope_section": dealt, "mrope_interleaved": True}
        return base | {"rope_type": "default", "partial_rotary_factor": 2 * pairs / D} | sections
    how = one(r, "default", "linear", "yarn", "llama3")
    scaled = {"factor": float(one(r, 2.0, 4.0, 8.0))} if how != "default" else {}
    if how in ("yarn", "llama3"):
        scaled |= {"original_max_position_embeddings": int(one(r, 32, 64, 256))}
    if how == "yarn":  # some of these a GGUF loses
        scaled |= one(r, {}, {}, {"beta_fast": 64.0}, {"beta_slow": 2.0, "truncate": False}, {"attention_factor": 1.3})
        scaled |= one(r, {}, {}, {"mscale": 1.0, "mscale_all_dim": 0.7})
    if how == "llama3":
        scaled |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return base | {"rope_type": how} | scaled


def settings(kind, seed):
    """A random configuration of a class."""
    r = np.random.default_rng([seed, *kind.encode()])
    G = int(one(r, 1, 2, 3))
    H, D, L = G * int(one(r, 1, 2, 4)), 2 * int(r.integers(3, 9)), int(r.integers(2, 6))
    c = {
        "vocab_size": V,
        "hidden_size": H * 2 * int(r.integers(4, 9)),
        "intermediate_size": int(r.integers(20, 60)),
        "num_attention_heads": H,
        "num_key_value_heads": G,
        "num_hidden_layers": L,
        "max_position_embeddings": 512,
        "rms_norm_eps": float(one(r, 1e-5, 1e-3)),
        "tie_word_embeddings": bool(one(r, True, False)),
    }
    if kind != "qwen2":
        c["head_dim"] = D
    if kind == "llama":
        c |= {"attention_bias": bool(one(r, True, False)), "mlp_bias": bool(one(r, True, False))}
    if kind == "mistral":
        c["sliding_window"] = one(r, None, 5)
    if kind in ("qwen2", "qwen3"):
        c |= one(r, {}, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1})
    if kind == "gemma3":
        # A scale of its own is computed here, and lost by a GGUF.
        c |= {"num_hidden_layers": 7, "sliding_window": 5, "query_pre_attn_scalar": int(one(r, D, 2 * D))}
        c |= one(r, {}, {"final_logit_softcapping": 3.0}, {"layer_types": (["full_attention", "sliding_attention"] * 4)[:7]})
        c["rope_parameters"] = {
            "full_attention": rope(r, kind, D),
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        }
    else:
        c["rope_parameters"] = rope(r, kind, D if kind != "qwen2" else c["hidden_size"] // H)
    if kind in ("qwen3moe", "qwen3next", "qwen35moe"):
        X = int(r.integers(3, 8))
        c |= {"num_experts": X, "num_experts_per_tok": int(r.integers(1, X + 1)), "moe_intermediate_size": int(r.integers(8, 20))}
        c |= {"norm_topk_prob": True} if kind != "qwen35moe" else {}
    if kind in ("qwen3next", "qwen35moe"):
        c["shared_expert_intermediate_size"] = int(r.integers(8, 20))
    if kind in ("qwen3next", "qwen35", "qwen35moe"):
        c["rms_norm_eps"] = 1e-3  # heads that read almost nothing would blow rounding up in their gated norm
        Hk, width = int(one(r, 1, 2, 3)), int(one(r, 8, 12))
        c |= {
            "linear_num_key_heads": Hk,
            "linear_num_value_heads": Hk * int(one(r, 1, 2, 3)),
            "linear_conv_kernel_dim": int(one(r, 3, 4)),
        }
        c |= {"linear_key_head_dim": width, "linear_value_head_dim": width}
        kinds = ["linear_attention", *(one(r, "linear_attention", "full_attention") for _ in range(L - 2)), "full_attention"]
        c |= one(r, {"layer_types": kinds}, {"num_hidden_layers": 5})
    if kind == "qwen35moe":
        del c["intermediate_size"]
    return c


def make(out, kind, seed, dtype):
    """Write a checkpoint, and what transformers computes of it in float32."""
    cls, config = CLASSES[kind]
    plain = kind.removesuffix("-vision")
    c = settings(plain, seed)
    if kind != plain:
        size = {"out_hidden_size": c["hidden_size"], "deepstack_visual_indexes": []} if plain == "qwen35" else {}
        c = {"text_config": c, "vision_config": VISION[plain] | size, "tie_word_embeddings": c["tie_word_embeddings"]}
        c |= {"mm_tokens_per_image": 4} if plain == "gemma3" else {}
    torch.manual_seed(seed)
    model = cls(config(**c)).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.3 if p.ndim == 1 or "conv1d" in name else 1.5 * p.shape[-1] ** -0.5
            level = 1.0 if p.ndim == 1 and name.endswith("norm.weight") and p.mean() > 0.5 else 0.0
            p.copy_(torch.randn(p.shape) * scale + level)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    model = cls.from_pretrained(out, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()
    ids = [int(i) for i in np.random.default_rng(seed).integers(0, V, TOKENS)]
    with torch.inference_mode():
        np.save(Path(out) / "logits.npy", model(input_ids=torch.tensor([ids])).logits[0].numpy())
        for _ in range(GREEDY):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    np.save(Path(out) / "greedy.npy", np.array(ids))


DTYPES = ("float32", "bfloat16", "float16")
TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def convert(sources, out):
    """Run a llama.cpp checkout's converter on every checkpoint. They have no tokenizer, and get none."""
    sys.path[:0] = [sources, str(Path(sources) / "gguf-py")]
    import convert_hf_to_gguf as converter
    from conversion import ModelType, get_model_architecture, get_model_class
    from conversion.base import ModelBase

    for folder in sorted(path.parent for path in Path(out).glob("*/config.json")):
        config = ModelBase.load_hparams(folder, False)
        cls = get_model_class(get_model_architecture(config, ModelType.TEXT))
        cls.set_vocab = lambda self: self._set_vocab_none()
        counted = folder / "tokenizer.json"  # Gemma's converter cuts the embedding to as many tokens as there are in it
        counted.write_text(json.dumps({"model": {"vocab": {}}, "added_tokens": [{}] * V}))
        hybrid = str(config.get("model_type")).startswith(("qwen3_5", "qwen3_next"))
        kind = TYPES[json.loads((folder / "config.json").read_text())["dtype"]]
        words = [str(folder), "--outfile", f"{folder}.gguf", "--outtype", kind]
        sys.argv = ["convert", *words, *(["--no-nextn"] if hybrid else [])]
        converter.main()
        counted.unlink()


def classes(sources):
    """Print the converter's own table of classes."""
    sys.path[:0] = [sources, str(Path(sources) / "gguf-py")]
    import gguf
    from conversion import ModelType, load_all_models
    from conversion.base import ModelBase

    load_all_models()
    print(json.dumps({name: gguf.MODEL_ARCH_NAMES[c.model_arch] for name, c in ModelBase._model_classes[ModelType.TEXT].items()}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["make", out, first, count, *kinds]:
            for seed in range(int(first), int(first) + int(count)):
                for kind in kinds or CLASSES:
                    make(Path(out) / f"{kind}-{seed}", kind, seed, DTYPES[seed % 3])
        case ["convert", sources, out]:
            convert(sources, out)
        case ["classes", sources]:
            classes(sources)
        case _:
            sys.exit(__doc__)
