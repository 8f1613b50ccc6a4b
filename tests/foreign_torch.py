"""transformers as a foreign runtime: Qwen3.5 with given weights, healthy or with a fault, recorded by refmodel.torch.record.

    PYTHON foreign_torch.py STATE.safetensors CONFIG.json OUT IDS FAULT...

Writes OUT/FAULT.safetensors for each fault, `none` for none: everything that its modules return. For a Python with torch and
transformers; of refmodel it needs refmodel.torch only.
"""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig  # noqa: E402
from transformers.models.qwen3_5 import modeling_qwen3_5 as modeling  # noqa: E402

import refmodel.torch  # noqa: E402


def attention(model):
    return next(layer for layer in model.model.layers if hasattr(layer, "self_attn")).self_attn


def delta(model, layer=0):
    return model.model.layers[layer].linear_attn


def interleaved(model):
    """Pairs of neighbours are rotated, where halves should be (F03)."""
    whole = modeling.rotate_half
    modeling.rotate_half = lambda x: torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return lambda: setattr(modeling, "rotate_half", whole)


def wrong_base(model):
    """RoPE's base is 500 (F06)."""
    rotary = model.model.rotary_emb
    n = 2 * rotary.inv_freq.numel()
    rotary.inv_freq = 500.0 ** (-torch.arange(0, n, 2).float() / n)


def no_query_norm(model):
    """The query's norm is left out in one block (F07)."""
    attention(model).q_norm.forward = lambda x: x


def no_gate(model):
    """Attention's output gate is always open (F11)."""
    part = attention(model)
    width = part.head_dim

    def opened(module, args, output):
        shape = output.shape
        heads = output.view(*shape[:-1], -1, 2 * width).clone()
        heads[..., width:] = 60.0
        return heads.view(shape)

    part.q_proj.register_forward_hook(opened)


def no_one(model):
    """A norm multiplies by w where it should by 1 + w, in block 2 (F14)."""
    model.model.layers[2].post_attention_layernorm.weight -= 1


def one_too_many(model):
    """The gated norm multiplies by 1 + w (F16)."""
    delta(model, 1).norm.weight += 1


def swapped(model):
    """Alpha and beta are exchanged in block 0 (F23)."""
    a, b = delta(model).in_proj_a.weight, delta(model).in_proj_b.weight
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)


def other_sign(model):
    """The decay's A_log has another sign (F27)."""
    delta(model, 4).A_log.neg_()


def no_bias(model):
    """dt_bias is left out (F28)."""
    delta(model, 1).dt_bias.zero_()


def reversed_taps(model):
    """The convolution's taps are reversed (F42)."""
    weight = delta(model).conv1d.weight
    weight.copy_(weight.flip(-1).clone())


def other_heads(model):
    """The value heads of one key head are exchanged with those of the next (F20)."""
    part = delta(model, 2)
    z = part.in_proj_z.weight
    z.copy_(z.view(part.num_v_heads, -1, z.shape[-1]).roll(1, 0).reshape(z.shape).clone())


def no_feed_forward(model):
    """A feed-forward part gives nothing (a tensor that was not loaded, F60's kind)."""
    model.model.layers[5].mlp.down_proj.weight.zero_()


def rotated_twice(model):
    """RoPE is applied twice (F05)."""
    once = modeling.apply_rotary_pos_emb
    modeling.apply_rotary_pos_emb = lambda q, k, cos, sin, **more: once(*once(q, k, cos, sin, **more), cos, sin, **more)
    return lambda: setattr(modeling, "apply_rotary_pos_emb", once)


FAULTS = {
    f.__name__: f
    for f in (interleaved, wrong_base, no_query_norm, no_gate, no_one, one_too_many, swapped, other_sign, no_bias, reversed_taps)
}
FAULTS |= {f.__name__: f for f in (other_heads, no_feed_forward, rotated_twice)}


@torch.no_grad()
def main(state, config, out, ids, *faults):
    tokens = torch.tensor([[int(word) for word in ids.split(",")]])
    for fault in faults:
        model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**json.loads(Path(config).read_text()))).float().eval()
        model.load_state_dict(load_file(state))
        undo = FAULTS[fault](model) if fault != "none" else None
        with refmodel.torch.record(model, Path(out) / f"{fault}.safetensors"):
            model(input_ids=tokens, use_cache=False)
        if undo:
            undo()


if __name__ == "__main__":
    main(*sys.argv[1:])
