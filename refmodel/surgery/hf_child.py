"""The child process in which transformers runs two checkpoints; it is run by its path, and imports nothing of this package.

    PYTHON -I hf_child.py < request

The Python is one that has torch and transformers. The request (JSON): `source` and `copy`, two folders; `map`, which layer of the
source is at each position; `calls`, token ids; `out`, a folder; `dtype`, the type in which both are computed, or auto. It gets
source.npz and copy.npz: the output of each layer (l_out-P) and the logits (result_output) of every call (@1 and so on after the
first), as float32. stdout has one JSON object a line: {"done": what} as it goes, and where something fails {"error": whose,
"why": words}.
"""

import copy
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any


def say(**what: Any) -> None:
    """Print one JSON object on a line, as an answer."""
    print(json.dumps(what), file=ANSWERS, flush=True)


def at_position(module: Any, position: int) -> Any:
    """A layer for one position: the same parameters, but its own place in the cache and so its own state."""
    twin = copy.copy(module)
    twin._modules = {name: inner if inner is None else at_position(inner, position) for name, inner in module._modules.items()}
    twin._forward_hooks = OrderedDict()
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = position
    return twin


def trunk_of(model: Any) -> tuple[Any, str]:
    """The part of a model that holds its layers, and the name of the list there."""
    found = model.get_decoder()
    parts = [found, *(part for part in (getattr(found, "model", None), getattr(found, "transformer", None)) if part is not None)]
    return next((part, name) for part in parts for name in ("layers", "h", "blocks") if hasattr(part, name))


PER_LAYER = ("layer_types", "layers_block_type", "layer_rope_theta", "num_attention_heads_per_layer")


def rearrange(model: Any, layers: list[int]) -> None:
    """Let the model run these of its layers in this order, with the per-layer lists of its configuration in step."""
    import torch

    trunk, name = trunk_of(model)
    config, held = trunk.config, getattr(trunk, name)
    setattr(trunk, name, torch.nn.ModuleList(at_position(held[layer], position) for position, layer in enumerate(layers)))
    lists = {name: getattr(config, name, None) for name in PER_LAYER}
    moved = {k: [v[layer] for layer in layers] for k, v in lists.items() if isinstance(v, (list, tuple)) and len(v) == len(held)}
    fixed = {k: v for k, v in moved.items() if isinstance(getattr(type(config), k, None), property)}
    if fixed:  # what a class derives from other values
        config.__class__ = type(type(config).__name__, (type(config),), fixed)
    for key in moved.keys() - fixed.keys():
        setattr(config, key, moved[key])
    config.num_hidden_layers = len(layers)


def loaded(folder: str, dtype: str) -> Any:
    """The model of a folder, in a dtype or `auto`. ValueError if weights are missing."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    named = [getattr(transformers, name) for name in config.architectures or () if hasattr(transformers, name)]
    kind = (named or [transformers.AutoModelForCausalLM])[0]
    how = {"dtype": dtype, "attn_implementation": "eager", "local_files_only": True, "output_loading_info": True}
    model, info = kind.from_pretrained(folder, config=config, **how)
    if absent := sorted(info["missing_keys"]):
        raise ValueError(f"its configuration needs {absent[0]} and {len(absent) - 1} more tensors, which are not there")
    return model.eval()


def run(folder: str, layers: list[int] | None, calls: list[list[int]], out: Path, dtype: str) -> None:
    """Run the calls in order, and save each layer's output and the logits to `out`.

    layers  which layer of the folder is at each position; None: its own order
    """
    import numpy as np
    import torch

    model, kept, state = loaded(folder, dtype), {}, None
    if layers is not None:
        rearrange(model, layers)

    def keep(name: str, x: Any) -> None:
        x = x[0] if isinstance(x, tuple) else x
        kept[name] = x.detach().float().numpy().reshape(-1, x.shape[-1])

    call = 0
    for position, layer in enumerate(getattr(*trunk_of(model))):
        layer.register_forward_hook(lambda module, given, x, p=position: keep(f"l_out-{p}" + (f"@{call}" if call else ""), x))
    with torch.inference_mode():
        for call, tokens in enumerate(calls):
            done = model(input_ids=torch.tensor([tokens]), past_key_values=state, use_cache=True)
            state = done.past_key_values
            keep("result_output" + (f"@{call}" if call else ""), done.logits)
    np.savez(out, **kept)


def answer(request: dict[str, Any]) -> None:
    """Answer a request, as at the top of this file."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    whose = "python"
    try:
        import torch
        import transformers

        say(done=f"transformers {transformers.__version__}, torch {torch.__version__}")
        for whose, layers in (("source", request["map"]), ("copy", None)):
            run(request[whose], layers, request["calls"], Path(request["out"]) / f"{whose}.npz", request.get("dtype", "auto"))
            say(done=whose)
    except Exception as error:  # whatever it is, it is theirs
        lines = str(error).strip().splitlines() or [type(error).__name__]
        say(error=whose, why=lines[0])


if __name__ == "__main__":
    ANSWERS, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    answer(json.load(sys.stdin))
