"""Small random checkpoints as transformers writes them: `PYTHON hf_checkpoints.py FOLDER` makes a folder for each below FOLDER.

For a Python with torch and transformers; the suite itself needs neither.
"""

import sys
from pathlib import Path

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

SIZES = {"vocab_size": 160, "hidden_size": 36, "intermediate_size": 52, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "mlp_only_layers": [1]}
HYBRID = {
    "num_hidden_layers": 5,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"],
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    },
}
VISION = {"depth": 2, "hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 36, "patch_size": 4}


def main(out: Path) -> None:
    torch.manual_seed(5)
    seen = Qwen3_5Config(
        text_config=SIZES | HYBRID, vision_config=VISION | {"num_position_embeddings": 16, "deepstack_visual_indexes": []}
    )
    models = {
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**SIZES, num_hidden_layers=4, head_dim=10)).to(torch.bfloat16),
        "qwen3moe": Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **EXPERTS, num_hidden_layers=4, head_dim=10)),
        "gemma3": Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, num_hidden_layers=7, head_dim=16, sliding_window=4)),
        "qwen35": Qwen3_5ForCausalLM(Qwen3_5TextConfig(**SIZES, **HYBRID)),
        "qwen35-vision": Qwen3_5ForConditionalGeneration(seen),
    }
    for name, model in models.items():
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 1:
                    p.add_(0.2 * torch.randn(p.shape))  # norms and gates away from their initial values
        model.save_pretrained(out / name, max_shard_size="60KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
