"""qwen3moe: Qwen3 with experts. Pre-norm blocks of grouped-query attention with normed heads, and a mixture of SwiGLU experts.

Source: arXiv:2505.09388; llama.cpp src/models/qwen3moe.cpp, build_moe_ffn.
"""

from functools import reduce

import numpy as np

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Output, Weight
from ..ops.experts import LEAST, largest, total
from .facts import CHOSEN, TYPICAL_EXPERTS, USUAL, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import always_attention, keys_and_values
from .metadata import common, with_experts
from .shapes import ATTENTION, EXPERTS, QKV, Shapes, expert_shapes, normed_attention, norms, outside

BIASED: tuple[str, ...] = QKV
SCALED: tuple[str, ...] = ATTENTION + EXPERTS
FUSED: tuple[str, ...] = ("attn_qkv",)
FACTS = Facts(typical=TYPICAL_EXPERTS, semantics={**USUAL, **CHOSEN})
kind, new_state, globals = always_attention, keys_and_values, outside


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    return with_experts(k, common(k))


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    return norms(hp, "attn_norm", "ffn_norm") | normed_attention(hp) | expert_shapes(hp)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them."""
    return c.tap("embd", x)


def block(x: F, w: Block, s: KeyValues, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    h = c.norm("attn_norm", x, w.attn_norm)
    x = c.tap("ffn_inp", x + attention(h, w, s, c))
    h = c.norm("ffn_norm", x, w.ffn_norm, normed="norm#3")
    return c.tap("l_out", x + experts(h, w, c))


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, then rotated heads. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, hp.rope))
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim), hp.window_of(w.index)))  # [T, H*D]
    return c.linear("mul_mat", o, w.attn_output)


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
