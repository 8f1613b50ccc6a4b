"""Small Hugging Face folders of random numbers, for what needs no transformers."""

import json

import numpy as np

from refmodel.hf.safetensors import FolderTensor as T
from refmodel.surgery.hf_write import write_safetensors

PREFIX = "model.layers."


def packed(x, kind):
    """Floats as the bytes of a safetensors type."""
    x = np.ascontiguousarray(x, np.float32)
    if kind == "BF16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.uint8).ravel()
    return x.astype({"F32": np.float32, "F16": np.float16}[kind]).view(np.uint8).ravel()


def values(n_layer, prefix=PREFIX, seed=3):
    """Name -> values of a llama-like model; the head is the embedding."""
    r = np.random.default_rng(seed)
    root = prefix.removesuffix("layers.")
    out = {f"{root}embed_tokens.weight": r.standard_normal((16, 128))}
    for i in range(n_layer):
        out |= {f"{prefix}{i}.{name}.weight": r.standard_normal((128, 128)) for name in ("self_attn.q_proj", "self_attn.o_proj")}
        out |= {f"{prefix}{i}.mlp.down_proj.weight": r.standard_normal((128, 64))}
        out |= {
            f"{prefix}{i}.{name}.weight": 1 + 0.2 * r.standard_normal(128) for name in ("input_layernorm", "post_attention_norm")
        }
    return out | {f"{root}norm.weight": 1 + 0.2 * r.standard_normal(128)}


def write(folder, config, tensors, kind="BF16"):
    """A folder of one file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    stored = [T(name, kind, x.shape, packed(x, kind)) for name, x in tensors.items()]
    with (folder / "model.safetensors").open("wb") as file:
        write_safetensors(file, stored, lambda count: None)
    return folder


def build(folder, model_type, n_layer=7, kind="BF16", prefix=PREFIX, **config):
    return write(folder, {"model_type": model_type, "num_hidden_layers": n_layer} | config, values(n_layer, prefix), kind)
