"""qwen3next: Qwen3-Next. Blocks mix tokens by a gated delta rule or gated attention, then go to experts.

Source: arXiv:2412.06464 for the delta rule; llama.cpp src/models/qwen3next.cpp, delta-net-base.cpp and build_moe_ffn.
"""

from functools import reduce
from typing import Any

import numpy as np

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues, Recurrent
from ..forward.weights import Block, Output, Weight
from ..ops.experts import LEAST, largest, total
from . import delta
from .facts import CHOSEN, TYPICAL_EXPERTS, TYPICAL_SHARED, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import delta_or_attention, recurrent_or_keys_and_values
from .metadata import common, with_experts, with_shared_expert
from .shapes import (
    ATTENTION,
    EXPERTS,
    QKV,
    SHARED_EXPERT,
    Shapes,
    delta_shapes,
    expert_shapes,
    gated_attention,
    norms,
    outside,
    shared_expert_shapes,
)

BIASED: tuple[str, ...] = QKV
SCALED: tuple[str, ...] = ATTENTION + EXPERTS + SHARED_EXPERT  # its graph reads none of the delta rule
FUSED: tuple[str, ...] = ("attn_qkv", "ffn_gate_up_exps", "ssm_in")
BA = "for each key head the betas of its value heads, then their alphas: ssm_beta and ssm_alpha of qwen35"
FACTS = Facts(
    delta.KINDS,
    predicts=True,
    typical=TYPICAL_EXPERTS | TYPICAL_SHARED,
    meanings={**delta.MEANINGS, "ssm_ba.weight": BA},
    kind_meanings={"delta": delta.SHARED + "h // {shared}"},
    semantics={**delta.GROUPED, **CHOSEN},
)
kind, new_state, globals = delta_or_attention, recurrent_or_keys_and_values, outside


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    return with_shared_expert(k, with_experts(k, delta.with_delta_net(k, common(k, hybrid=True))))


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    gates = {"ssm_ba.weight": (2 * hp.n_v_head, hp.n_embd)}
    mixing = delta_shapes(hp) | gates if hp.recurrent[index] else gated_attention(hp)
    return norms(hp, "attn_norm", "post_attention_norm") | mixing | expert_shapes(hp) | shared_expert_shapes(hp)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them."""
    return c.tap("model.embed_tokens", x)


def block(x: F, w: Block, s: Any, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    mix, last_norm = (delta_net, "norm#2") if c.hp.recurrent[w.index] else (full_attention, "norm#3")
    x = c.tap("attn_residual", x + mix(c.norm("attn_norm", x, w.attn_norm), w, s, c))
    h = c.norm("attn_post_norm", x, w.post_attention_norm, normed=last_norm)
    return c.tap("l_out", x + c.tap("ffn_out", experts(h, w, c) + shared_expert(h, w, c)))


def full_attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, partly rotated heads and a sigmoid gate. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    qg = c.linear("Qcur_full", h, w.attn_q).reshape(T, hp.n_head, 2, hp.head_dim)
    q, gate = c.tap("Qcur_view", qg[:, :, 0]), qg[:, :, 1]  # [T, H, D] each
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("Qcur", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, hp.rope))
    k = c.tap("Kcur#1", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, hp.rope))
    o = c.tap("attn_pregate", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim)))  # [T, H*D]
    o = c.tap("attn_gated", o * c.tap("gate_sigmoid", num.sigmoid(c.tap("gate", gate).reshape(T, -1))))
    return c.linear("attn_output", o, w.attn_output)


def delta_net(h: F, w: Block, s: Recurrent, c: Call) -> F:
    """Convolution, gated delta rule, gated norm. [T, E] -> [T, E]"""
    hp, num, T, Dk = c.hp, c.num, len(h), c.hp.d_state
    u = c.each(convolution, [c.linear("linear_attn_qkv_mixed", h, w.attn_qkv)], w, s)  # [T, C]
    q, k, v = u[:, : hp.key_dim], u[:, hp.key_dim : 2 * hp.key_dim], u[:, 2 * hp.key_dim :]
    repeat = hp.n_v_head // hp.n_k_head  # value head h reads key head h // repeat
    q = unit_norm("q_conv", q.reshape(T, hp.n_k_head, Dk), "", c)
    k = unit_norm("k_conv", k.reshape(T, hp.n_k_head, Dk), "#1", c)
    q, k = (c.tap(f"{x}_conv_predelta", np.repeat(heads, repeat, axis=1)) for x, heads in (("q", q), ("k", k)))
    v = c.tap("v_conv_predelta", v.reshape(T, hp.n_v_head, Dk))

    ba = c.linear("linear_attn_mixed_ba", h, w.ssm_ba).reshape(T, hp.n_k_head, 2, repeat)  # by key head
    a = c.tap("a", ba[:, :, 1]).reshape(T, hp.n_v_head)
    a = c.tap("a_softplus", num.softplus(c.tap("add", a + w.ssm_dt_bias.dense(num.dtype))))
    log_decay = c.tap("gate", a * w.ssm_a.dense(num.dtype))  # [T, Hv]
    beta = c.tap("sigmoid", num.sigmoid(c.tap("b", ba[:, :, 0]))).reshape(T, hp.n_v_head)

    o = c.each(delta_rule, [q, k, v, log_decay, beta], w, s)  # [T, Hv, Dv]
    o = c.tap("attn_output", o * num.inverse_root(Dk))

    z = c.linear("z", h, w.attn_gate).reshape(o.shape)
    o = c.norm("mul", o, w.ssm_norm, normed="norm#1") * c.tap("silu", num.silu(z))
    return c.linear("linear_attn_out", c.tap("final_output", o.reshape(T, -1)), w.ssm_out)


def convolution(u: F, w: Block, s: Recurrent, c: Call) -> F:
    """A causal convolution of each channel over one sequence, then SiLU. [T, C] -> [T, C]; replaces s.conv [K-1, C]."""
    T = len(u)
    remembered = c.tap("conv_states_reshaped", s.conv, transposed=True)  # [K-1, C]
    u = c.tap("conv_input", np.concatenate([remembered, u]), transposed=True)  # [K-1+T, C]
    s.conv = c.tap("conv_state_last", u[T:], transposed=True).copy()
    u = c.num.causal_conv1d(np.ascontiguousarray(u), w.ssm_conv1d.dense(c.num.dtype))
    return c.tap("conv_output_silu", c.num.silu(c.tap("conv_output_raw", u)))


def delta_rule(q: F, k: F, v: F, log_decay: F, beta: F, w: Block, s: Recurrent, c: Call) -> F:
    """The gated delta rule over one sequence: [T, Hv, Dv], shapes as in ops.deltanet; replaces s.delta [Hv, Dv, Dk]."""
    before = c.tap("state_predelta", s.delta)
    after = s.next_delta()
    o = c.num.gated_delta_rule(q, k, v, log_decay, beta, before, after)
    s.delta = c.tap("new_state", after)
    return o


def unit_norm(name: str, x: F, mark: str, c: Call) -> F:
    """x / sqrt(Σx² + eps) over heads x [T, H, Dk]: an RMS norm of eps/Dk, times Dk^-0.5, as build_gdn_l2_norm has it."""
    x = c.tap(f"rms_norm{mark}", c.num.rms_norm(c.tap(name, x), c.hp.unit_eps / x.shape[-1]))
    return c.tap(f"scale{mark}", x * c.num.inverse_root(x.shape[-1]))


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


def shared_expert(h: F, w: Block, c: Call) -> F:
    """sigmoid(g · h) · down(silu(gate(h)) · up(h)), for every token. [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w.ffn_gate_shexp)
    up = c.linear("ffn_up", h, w.ffn_up_shexp)
    out = c.linear("ffn_shexp", c.tap("ffn_swiglu", c.num.swiglu(gate, up)), w.ffn_down_shexp)
    share = c.linear("shared_expert_gate", h, w.ffn_gate_inp_shexp)  # [T, 1]
    return c.tap("ffn_shexp_gated", out * c.tap("shared_expert_gate_sigmoid", c.num.sigmoid(share)))


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.tap("result_norm", c.norm("h_nextn", x, output_norm))


def head(h: F, output: Output, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.logits(h, output))
