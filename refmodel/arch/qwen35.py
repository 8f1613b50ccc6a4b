"""qwen35: Qwen3.5 and 3.6, dense. Most blocks mix tokens by a gated delta rule, some by gated full attention.

Source: arXiv:2412.06464 for the delta rule; llama.cpp src/models/qwen35.cpp and delta-net-base.cpp.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import DType, F, Matrix
from ..forward.call import Call
from ..forward.state import KeyValues, Recurrent, State
from ..forward.weights import Block, Weight
from ..gguf.metadata import Metadata
from ..ops.rope import Rope
from .metadata import (
    ATTENTION,
    DELTA,
    FFN,
    MAX_BLOCKS,
    counted,
    delta_sizes,
    head_counts,
    recurrent_blocks,
    require,
    rotation,
    turned_by_text,
)

BIASED: tuple[str, ...] = ("attn_q", "attn_k", "attn_v")
SCALED: tuple[str, ...] = ATTENTION + DELTA + FFN
FUSED: tuple[str, ...] = ("attn_qkv",)


@dataclass(frozen=True)
class Hparams:
    n_layer: int
    n_nextn: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    eps: float
    rope: Rope
    recurrent: tuple[bool, ...]  # a block's kind, by its index in the file
    d_conv: int  # K, taps of the convolution
    d_state: int  # Dk = Dv
    n_k_head: int  # Hk
    n_v_head: int  # Hv

    @property
    def key_dim(self) -> int:
        return self.d_state * self.n_k_head

    @property
    def value_dim(self) -> int:
        return self.d_state * self.n_v_head

    @property
    def conv_dim(self) -> int:
        """C: the convolution runs over q, k and v side by side."""
        return 2 * self.key_dim + self.value_dim


def hparams(md: Metadata, rope_freqs: tuple[float, ...]) -> Hparams:
    a = "qwen35"
    n_all = counted(md, f"{a}.block_count", md.int(f"{a}.block_count"), most=MAX_BLOCKS)
    n_nextn = counted(md, f"{a}.nextn_predict_layers", md.int(f"{a}.nextn_predict_layers", 0), 0, n_all - 1)
    n_embd = counted(md, f"{a}.embedding_length", md.int(f"{a}.embedding_length"))
    n_head, n_head_kv = head_counts(md, a, n_all)
    head_dim = counted(md, f"{a}.attention.key_length", md.int(f"{a}.attention.key_length", n_embd // n_head))
    require(md, f"{a}.attention.value_length", md.int(f"{a}.attention.value_length", head_dim), head_dim)
    n_rot = counted(md, f"{a}.rope.dimension_count", md.int(f"{a}.rope.dimension_count", head_dim), 2, head_dim)
    factors = turned_by_text(md.ints(f"{a}.rope.dimension_sections", 4), n_rot // 2)
    d_conv, d_state, n_k_head, n_v_head = delta_sizes(md, a)
    md.int(f"{a}.context_length")
    return Hparams(
        n_layer=n_all - n_nextn,
        n_nextn=n_nextn,
        n_embd=n_embd,
        n_ff=md.per_block(f"{a}.feed_forward_length", n_all)[0],
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=md.float(f"{a}.attention.layer_norm_rms_epsilon"),
        rope=rotation(md, a, n_rot, adjacent=False, factors=factors),
        recurrent=recurrent_blocks(md, a, n_all, n_nextn),
        d_conv=d_conv,
        d_state=d_state,
        n_k_head=n_k_head,
        n_v_head=n_v_head,
    )


def globals(hp: Hparams, n_vocab: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    required = {"token_embd.weight": (n_vocab, hp.n_embd), "output_norm.weight": (hp.n_embd,)}
    return required, {"output.weight": (n_vocab, hp.n_embd)}


def shapes(hp: Hparams, index: int) -> dict[str, tuple[int, ...]]:
    E, Q, KV = hp.n_embd, hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    mixing = {
        "attention": {
            "attn_q.weight": (2 * Q, E),
            "attn_k.weight": (KV, E),
            "attn_v.weight": (KV, E),
            "attn_q_norm.weight": (hp.head_dim,),
            "attn_k_norm.weight": (hp.head_dim,),
            "attn_output.weight": (E, Q),
        },
        "delta": {
            "attn_qkv.weight": (hp.conv_dim, E),
            "attn_gate.weight": (hp.value_dim, E),
            "ssm_conv1d.weight": (hp.conv_dim, hp.d_conv),
            "ssm_dt.bias": (hp.n_v_head,),
            "ssm_a": (hp.n_v_head,),
            "ssm_beta.weight": (hp.n_v_head, E),
            "ssm_alpha.weight": (hp.n_v_head, E),
            "ssm_norm.weight": (hp.d_state,),
            "ssm_out.weight": (E, hp.value_dim),
        },
    }
    return {
        "attn_norm.weight": (E,),
        **mixing[kind(hp, index)],
        "post_attention_norm.weight": (E,),
        "ffn_gate.weight": (hp.n_ff, E),
        "ffn_up.weight": (hp.n_ff, E),
        "ffn_down.weight": (E, hp.n_ff),
    }


def kind(hp: Hparams, index: int) -> str:
    return "delta" if hp.recurrent[index] else "attention"


def new_state(hp: Hparams, index: int, dtype: DType) -> State:
    if not hp.recurrent[index]:
        return KeyValues(hp.n_head_kv, hp.head_dim)
    conv = np.zeros((hp.d_conv - 1, hp.conv_dim), dtype)
    return Recurrent(conv, np.zeros((hp.n_v_head, hp.d_state, hp.d_state), dtype))


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block wants them."""
    return c.tap("model.input_embed", x)


def block(x: F, w: Block, s: Any, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    mix, last_norm = (delta_net, "norm#2") if c.hp.recurrent[w.index] else (full_attention, "norm#3")
    x = c.tap("attn_residual", x + mix(c.norm("attn_norm", x, w.attn_norm), w, s, c))
    h = c.norm("attn_post_norm", x, w.post_attention_norm, normed=last_norm)
    return c.tap("l_out", x + c.tap("ffn_out", swiglu(h, w, c)))


def full_attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, partly rotated heads and a sigmoid gate. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    qg = c.linear("Qcur_full", h, w, "attn_q").reshape(T, hp.n_head, 2, hp.head_dim)
    q, gate = c.tap("Qcur_reshaped", qg[:, :, 0]), qg[:, :, 1].reshape(T, -1)  # [T, H, D], [T, H*D]
    v = c.linear("Vcur", h, w, "attn_v").reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w, "attn_k").reshape(v.shape)
    q = c.tap("Qcur", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, hp.rope))
    k = c.tap("Kcur#1", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, hp.rope))
    k, v = s.append(num.store(k), num.store(v))  # [S, G, D]
    o = c.tap("attn_pregate", c.attention(q, k, v, num.inverse_root(hp.head_dim)))  # [T, H*D]
    o = c.tap("attn_gated", o * c.tap("gate_sigmoid", num.sigmoid(c.tap("gate_reshaped", gate))))
    return c.tap("attn_output", num.linear(w.attn_output, o))


def delta_net(h: F, w: Block, s: Recurrent, c: Call) -> F:
    """Convolution, gated delta rule, gated norm. [T, E] -> [T, E]"""
    hp, num, T, Dk = c.hp, c.num, len(h), c.hp.d_state
    u = c.tap("linear_attn_qkv_mixed", num.linear(w.attn_qkv, h))  # [T, C]
    remembered = c.tap("conv_states_reshaped", s.conv.T).T  # [K-1, C]
    u = c.tap("conv_input", np.concatenate([remembered, u]).T).T  # [K-1+T, C]
    s.conv = c.tap("conv_state_last", u[T:].T).T.copy()
    u = c.tap("conv_output_raw", num.causal_conv1d(np.ascontiguousarray(u), w.ssm_conv1d.dense(num.dtype)))
    u = c.tap("conv_output_silu", num.silu(u))
    q, k, v = u[:, : hp.key_dim], u[:, hp.key_dim : 2 * hp.key_dim], u[:, 2 * hp.key_dim :]
    q = unit_norm("q_conv", q.reshape(T, hp.n_k_head, Dk), "rms_norm", c)
    k = unit_norm("k_conv", k.reshape(T, hp.n_k_head, Dk), "rms_norm#1", c)
    v = c.tap("v_conv_predelta", v.reshape(T, hp.n_v_head, Dk))

    a = c.tap("alpha", num.linear(w.ssm_alpha, h))  # [T, Hv]
    a = c.tap("a_softplus", num.softplus(c.tap("add", a + w.ssm_dt_bias.dense(num.dtype))))
    log_decay = c.tap("gate", a * w.ssm_a.dense(num.dtype))
    beta = c.tap("beta_sigmoid", num.sigmoid(c.tap("beta", num.linear(w.ssm_beta, h))))

    state = c.tap("state_predelta", s.delta)  # [Hv, Dv, Dk]
    o = num.gated_delta_rule(q, k, v, log_decay, beta, state, s.delta)
    s.delta = c.tap("new_state", s.delta)
    o = c.tap("attn_output", o * num.inverse_root(Dk))

    z = c.tap("z", num.linear(w.attn_gate, h)).reshape(o.shape)
    o = c.norm("mul", o, w.ssm_norm, normed="norm#1") * c.tap("silu", num.silu(z))
    return c.tap("linear_attn_out", num.linear(w.ssm_out, c.tap("final_output", o.reshape(T, -1))))


def unit_norm(name: str, x: F, normed: str, c: Call) -> F:
    """x / sqrt(Σx² + eps) over heads x [T, H, Dk]: an RMS norm of eps/Dk, times Dk^-0.5, as build_gdn_l2_norm has it."""
    x = c.tap(name, x)
    return c.tap(f"{name}_predelta", c.tap(normed, c.num.rms_norm(x, c.hp.eps / x.shape[-1])) * c.num.inverse_root(x.shape[-1]))


def swiglu(h: F, w: Block, c: Call) -> F:
    """down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.tap("ffn_gate", c.num.linear(w.ffn_gate, h))
    up = c.tap("ffn_up", c.num.linear(w.ffn_up, h))
    return c.num.linear(w.ffn_down, c.tap("ffn_swiglu", c.num.swiglu(gate, up)))


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.tap("result_norm", c.norm("h_nextn", x, output_norm))


def head(h: F, output: Matrix, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.num.linear(output, h))
