"""Make golden/hf/: transformers' logits, in float32, for a random Qwen3.5 text checkpoint, which is also written as a GGUF, and for
the trained austen-*.gguf, whose weights (as they are after quantization) are put back into transformers' layout.

Needs torch and transformers (extra [train]); of the rest only train/ does.

    python golden/make_hf.py
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "train"))

from convert import convert, renamed, restored  # noqa: E402
from shape import CONFIG as TRAINED  # noqa: E402

import refmodel  # noqa: E402

TOKENS = [3, 77, 12, 12, 140, 9, 61, 0, 33, 99, 5, 150, 18]
KINDS = ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"]

CONFIG = {
    "vocab_size": 160,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": len(KINDS),
    "layer_types": KINDS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    },
}


AUSTEN = ("BF16", "Q8_0", "Q4_K_M")
TEXT = "Emma was very glad to see him.\n7 + 5 = 12\n"


def checkpoint() -> Qwen3_5ForCausalLM:
    """Random weights; norms and gates away from their initial values, so that a wrong one shows."""
    torch.manual_seed(17)
    model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**CONFIG)).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.2 if p.ndim == 1 else 1.5 * p.shape[-1] ** -0.5 if "conv1d" not in name else 0.5
            p.copy_(torch.randn(p.shape) * scale + (1.0 if name.endswith("linear_attn.norm.weight") else 0.0))
    return model


@torch.no_grad()
def logits(model: Qwen3_5ForCausalLM, tokens: list[int]) -> np.ndarray:
    return model(torch.tensor([tokens])).logits[0].numpy()


def loaded(path: Path) -> tuple[Qwen3_5ForCausalLM, list[int]]:
    """transformers' model with the weights of a GGUF, dequantized, and the tokens of TEXT."""
    ours, theirs = refmodel.load(path), Qwen3_5ForCausalLM(Qwen3_5TextConfig(**TRAINED)).float().eval()
    state = {}
    for name in theirs.state_dict():
        packed = ours.output if name == "lm_head.weight" else ours.weights[renamed(name)]
        state[name] = torch.tensor(restored(name, packed.dense(np.dtype(np.float32)), TRAINED))
    theirs.load_state_dict(state)
    return theirs, ours.tokenizer.encode(TEXT, add_special=False, parse_special=False)


def save(name: str, tokens: list[int], found: np.ndarray, seed: int) -> None:
    np.save(HERE / "hf" / f"{name}.logits.npy", found)
    facts = {
        "tokens": tokens,
        "seed": seed,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": "float32",
    }
    (HERE / "hf" / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    model = checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        convert(Path(folder), HERE / "models" / "qwen35-hf.gguf")
    save("qwen35-hf", TOKENS, logits(model, TOKENS), 17)
    for kind in AUSTEN:
        model, tokens = loaded(HERE / "models" / f"austen-{kind}.gguf")
        save(f"austen-{kind}", tokens, logits(model, tokens), 35)
