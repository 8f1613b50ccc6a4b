"""qwen3moe: Qwen3 with experts. Pre-norm blocks of grouped-query attention with normed heads, and a mixture of SwiGLU experts.

Source: arXiv:2505.09388; llama.cpp src/models/qwen3moe.cpp, build_moe_ffn.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from ..arrays import DType, F, Matrix
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Weight
from ..gguf.metadata import Metadata
from ..ops.experts import LEAST, largest, total
from ..ops.rope import Rope
from .metadata import ATTENTION, EXPERTS, MAX_BLOCKS, counted, expert_sizes, head_counts, require, rotation

BIASED: tuple[str, ...] = ("attn_q", "attn_k", "attn_v")
SCALED: tuple[str, ...] = ATTENTION + EXPERTS
FUSED: tuple[str, ...] = ("attn_qkv",)


@dataclass(frozen=True)
class Hparams:
    n_layer: int
    n_nextn: int
    n_embd: int
    n_expert: int  # X
    n_used: int  # U, experts of a token
    n_ff: int  # of an expert
    n_head: int
    n_head_kv: int
    head_dim: int
    eps: float
    rope: Rope


def hparams(md: Metadata, rope_freqs: tuple[float, ...]) -> Hparams:
    a = "qwen3moe"
    n_layer = counted(md, f"{a}.block_count", md.int(f"{a}.block_count"), most=MAX_BLOCKS)
    n_embd = counted(md, f"{a}.embedding_length", md.int(f"{a}.embedding_length"))
    n_head, n_head_kv = head_counts(md, a, n_layer)
    head_dim = counted(md, f"{a}.attention.key_length", md.int(f"{a}.attention.key_length", n_embd // n_head))
    n_expert, n_used, n_ff = expert_sizes(md, a, n_layer)
    md.int(f"{a}.context_length")
    require(md, f"{a}.attention.value_length", md.int(f"{a}.attention.value_length", head_dim), head_dim)
    require(md, f"{a}.rope.dimension_count", md.int(f"{a}.rope.dimension_count", head_dim), head_dim)
    return Hparams(
        n_layer=n_layer,
        n_nextn=0,
        n_embd=n_embd,
        n_expert=n_expert,
        n_used=n_used,
        n_ff=n_ff,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=md.float(f"{a}.attention.layer_norm_rms_epsilon"),
        rope=rotation(md, a, head_dim, adjacent=False, factors=()),
    )


def globals(hp: Hparams, n_vocab: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    required = {"token_embd.weight": (n_vocab, hp.n_embd), "output_norm.weight": (hp.n_embd,)}
    return required, {"output.weight": (n_vocab, hp.n_embd)}


def shapes(hp: Hparams, index: int) -> dict[str, tuple[int, ...]]:
    E, Q, KV = hp.n_embd, hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    return {
        "attn_norm.weight": (E,),
        "attn_q.weight": (Q, E),
        "attn_k.weight": (KV, E),
        "attn_v.weight": (KV, E),
        "attn_q_norm.weight": (hp.head_dim,),
        "attn_k_norm.weight": (hp.head_dim,),
        "attn_output.weight": (E, Q),
        "ffn_norm.weight": (E,),
        "ffn_gate_inp.weight": (hp.n_expert, E),
        "ffn_gate_exps.weight": (hp.n_expert, hp.n_ff, E),
        "ffn_up_exps.weight": (hp.n_expert, hp.n_ff, E),
        "ffn_down_exps.weight": (hp.n_expert, E, hp.n_ff),
    }


def kind(hp: Hparams, index: int) -> str:
    return "attention"


def new_state(hp: Hparams, index: int, dtype: DType) -> KeyValues:
    return KeyValues(hp.n_head_kv, hp.head_dim)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block wants them."""
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
    q = c.linear("Qcur", h, w, "attn_q").reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w, "attn_v").reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w, "attn_k").reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, hp.rope))
    k, v = s.append(num.store(k), num.store(v))  # [S, G, D]
    o = c.tap("kqv_out", c.attention(q, k, v, num.inverse_root(hp.head_dim)))  # [T, H*D]
    return c.tap("mul_mat", num.linear(w.attn_output, o))


def experts(h: F, w: Block, c: Call) -> F:
    """Each token's own mixture of Σ weight · down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    num = c.num
    probs = c.tap("ffn_moe_probs", num.soft_max(c.tap("ffn_moe_logits", num.linear(w.ffn_gate_inp, h))))  # [T, X]
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


def head(h: F, output: Matrix, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.num.linear(output, h))
