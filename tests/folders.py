"""Small Hugging Face folders of random numbers, for what needs no transformers; and changes of them."""

import json

import numpy as np

from refmodel.hf.folder import read_folder
from refmodel.hf.safetensors import FolderTensor as T
from refmodel.surgery import values as stored
from refmodel.surgery.hf_write import write_safetensors

PREFIX = "model.layers."


def packed(x, kind):
    """Floats as the bytes of a safetensors type."""
    x = np.ascontiguousarray(x, np.float32)
    if kind == "BF16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.uint8).ravel()
    return x.astype({"F32": np.float32, "F16": np.float16}[kind]).view(np.uint8).ravel()


def floats(t):
    """The values of a tensor."""
    return np.concatenate(list(stored.floats(t))).reshape(t.shape)


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


def write_tensors(path, tensors, kind="BF16"):
    """A safetensors file of these values."""
    with path.open("wb") as file:
        write_safetensors(file, [T(name, kind, x.shape, packed(x, kind)) for name, x in tensors.items()], lambda count: None)


def write(folder, config, tensors, kind="BF16"):
    """A folder of one file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "model.safetensors", tensors, kind)
    return folder


def build(folder, model_type, n_layer=7, kind="BF16", prefix=PREFIX, **config):
    return write(folder, {"model_type": model_type, "num_hidden_layers": n_layer} | config, values(n_layer, prefix), kind)


# Changes of a folder: each is a function that makes one.


def edit(folder, change):
    """The text of config.json changed by a function."""
    (folder / "config.json").write_text(change((folder / "config.json").read_text()))


def config(**values):
    """Values of config.json set."""
    return lambda folder: edit(folder, lambda text: json.dumps(json.loads(text) | values))


def dropped(*keys):
    """Keys of config.json removed."""
    return lambda folder: edit(folder, lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k not in keys}))


def file(name, text):
    """A file next to the weights written."""
    return lambda folder: (folder / name).write_text(text)


def tensors(change, kind="BF16"):
    """The values changed by a function of (name -> values), and saved again in one file."""

    def apply(folder):
        held = {name: floats(t) for name, t in read_folder(folder).tensors.items()}
        change(held)
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
        write_tensors(folder / "model.safetensors", held, kind)

    return apply


def reshard(folder, count, names="model-{}.safetensors"):
    """The tensors dealt out to several files with an index, in another order."""
    held = list(read_folder(folder).tensors.values())[::-1]
    held = [T(t.name, t.type, t.shape, t.data.copy()) for t in held]
    (folder / "model.safetensors").unlink()
    parts = {names.format(i): held[i::count] for i in range(count)}
    for name, part in parts.items():
        with (folder / name).open("wb") as out:
            write_safetensors(out, part, lambda written: None)
    index = {t.name: name for name, part in parts.items() for t in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
