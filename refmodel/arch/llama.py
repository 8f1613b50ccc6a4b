"""llama: Llama 2 and 3, Mistral, Mixtral, TinyLlama, SmolLM. Pre-norm blocks of grouped-query attention and SwiGLU, or experts.

Source: arXiv:2302.13971, arXiv:2401.04088 for experts; llama.cpp src/models/llama.cpp and build_moe_ffn.
"""

from functools import reduce

import numpy as np

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Output, Weight
from ..ops.experts import LEAST, largest, total
from .facts import CHOSEN, USUAL, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import always_attention, keys_and_values
from .metadata import common, with_choice, with_dense, with_width
from .rotation import divided
from .shapes import ATTENTION, EXPERTS, FFN, Shapes, attention_shapes, dense, expert_shapes, norms, outside

BIASED: tuple[str, ...] = ATTENTION + FFN
SCALED: tuple[str, ...] = ATTENTION + FFN + EXPERTS
FUSED: tuple[str, ...] = ("attn_qkv",)
FACTS = Facts(semantics={**USUAL, **CHOSEN})
kind, new_state = always_attention, keys_and_values


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    hp = common(k, adjacent=True)
    return divided(k, with_choice(k, with_width(k, hp)) if k.count("expert_count", 0, 0) else with_dense(k, hp))


def globals(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors outside of blocks for V = n_vocab tokens: the required ones, and those that a file may have."""
    required, optional = outside(hp, n_vocab)
    return required, optional | {"rope_freqs.weight": (hp.rope.n_rot // 2,)}


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    return norms(hp, "attn_norm", "ffn_norm") | attention_shapes(hp) | (expert_shapes(hp) if hp.n_expert else dense(hp))


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them."""
    return c.tap("embd", x)


def block(x: F, w: Block, s: KeyValues, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    h = c.norm("attn_norm", x, w.attn_norm)
    x = c.tap("ffn_inp", x + attention(h, w, s, c))
    h = c.norm("ffn_norm", x, w.ffn_norm, normed="norm#1")
    return c.tap("l_out", x + (experts if c.hp.n_expert else swiglu)(h, w, c))


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with rotated heads. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(q, c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(k, c.pos, hp.rope))
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim), hp.window_of(w.index)))  # [T, H*D]
    return c.linear("attn_out", o, w.attn_output)


def swiglu(h: F, w: Block, c: Call) -> F:
    """down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w.ffn_gate)
    up = c.linear("ffn_up", h, w.ffn_up)
    return c.linear("ffn_out", c.tap("ffn_swiglu", c.num.swiglu(gate, up)), w.ffn_down)


def experts(h: F, w: Block, c: Call) -> F:
    """Each token's own mixture of Σ weight · down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    num = c.num
    probs = c.tap("ffn_moe_probs", num.soft_max(c.linear("ffn_moe_logits", h, w.ffn_gate_inp)))  # [T, X]
    chosen = largest(probs, c.hp.n_used)  # [T, U]
    share = c.tap("ffn_moe_weights", np.take_along_axis(probs, chosen, axis=1))
    sums = np.maximum(c.tap("ffn_moe_weights_sum", total(share)), LEAST)
    share = c.tap("ffn_moe_weights_norm", share / c.tap("ffn_moe_weights_sum_clamped", sums))

    gate = c.tap("ffn_moe_gate", num.experts(w.ffn_gate_exps, h[:, None], chosen))  # [T, U, n_ff]
    up = c.tap("ffn_moe_up", num.experts(w.ffn_up_exps, h[:, None], chosen))
    down = num.experts(w.ffn_down_exps, c.tap("ffn_moe_swiglu", num.swiglu(gate, up)), chosen)
    mixed = c.tap("ffn_moe_weighted", c.tap("ffn_moe_down", down) * share[:, :, None])  # [T, U, E]
    return c.tap("ffn_moe_out", reduce(np.add, mixed.swapaxes(0, 1)))  # the largest share first


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Output, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.logits(h, output))
