"""gemma3: Gemma 3. Attention over a sliding window in most blocks, over all tokens in some; norms before and behind each part.

Source: arXiv:2503.19786; llama.cpp src/models/gemma3.cpp.
"""

import math
from dataclasses import dataclass, replace

from ..arrays import DType, F, Matrix
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Weight
from ..gguf.metadata import Metadata
from ..ops.rope import Rope
from .metadata import ATTENTION, MAX_BLOCKS, counted, head_counts, require, rotation

BIASED: tuple[str, ...] = ("attn_q", "attn_k", "attn_v")
SCALED: tuple[str, ...] = ATTENTION  # its graph reads none of the FFN
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
    window: int  # tokens that a query sees in a sliding block, itself among them; 0 if no block slides
    sliding: tuple[bool, ...]  # by the block's index in the file
    rope: Rope
    rope_sliding: Rope
    query_dim: int  # the query's scale is query_dim^-0.5
    softcap: float  # of the logits; 0 for none


def hparams(md: Metadata, rope_freqs: tuple[float, ...]) -> Hparams:
    a = "gemma3"
    n_layer = counted(md, f"{a}.block_count", md.int(f"{a}.block_count"), most=MAX_BLOCKS)
    n_embd = counted(md, f"{a}.embedding_length", md.int(f"{a}.embedding_length"))
    n_head, n_head_kv = head_counts(md, a, n_layer)
    head_dim = counted(md, f"{a}.attention.key_length", md.int(f"{a}.attention.key_length", n_embd // n_head))
    md.int(f"{a}.context_length")
    require(md, f"{a}.attention.value_length", md.int(f"{a}.attention.value_length", head_dim), head_dim)
    require(md, f"{a}.rope.dimension_count", md.int(f"{a}.rope.dimension_count", head_dim), head_dim)
    window = counted(md, f"{a}.attention.sliding_window", md.int(f"{a}.attention.sliding_window", 0), 0)
    rope = rotation(md, a, head_dim, adjacent=False, factors=())
    require(md, f"{a}.rope.scaling.type is 'yarn'", bool(rope.unscaled), False)
    return Hparams(
        n_layer=n_layer,
        n_nextn=0,
        n_embd=n_embd,
        n_ff=md.per_block(f"{a}.feed_forward_length", n_layer)[0],
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=md.float(f"{a}.attention.layer_norm_rms_epsilon"),
        window=window,
        sliding=sliding_blocks(md, n_layer) if window else (False,) * n_layer,
        rope=rope,
        rope_sliding=replace(rope, base=md.float(f"{a}.rope.freq_base_swa", 10000.0), scale=1.0),
        query_dim=n_embd // n_head if n_layer == 62 else head_dim,  # 62 blocks: the 27B
        softcap=md.float(f"{a}.final_logit_softcapping", 0.0),
    )


def sliding_blocks(md: Metadata, n_layer: int) -> tuple[bool, ...]:
    """The file's own list, else all blocks but each sixth (or whatever period it names). Source: load_swa_pattern."""
    key = "gemma3.attention.sliding_window_pattern"
    if key in md and md.fields[key].item is not None:
        return tuple(bool(slides) for slides in md.per_block(key, n_layer))
    period = md.int(key, 6)
    return tuple(period == 0 or i % period < period - 1 for i in range(n_layer))


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
        "post_attention_norm.weight": (E,),
        "ffn_norm.weight": (E,),
        "ffn_gate.weight": (hp.n_ff, E),
        "ffn_up.weight": (hp.n_ff, E),
        "ffn_down.weight": (E, hp.n_ff),
        "post_ffw_norm.weight": (E,),
    }


def kind(hp: Hparams, index: int) -> str:
    return "sliding" if hp.sliding[index] else "attention"


def new_state(hp: Hparams, index: int, dtype: DType) -> KeyValues:
    return KeyValues(hp.n_head_kv, hp.head_dim)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block wants them, times √E."""
    return c.tap("inp_scaled", c.tap("embd", x) * math.sqrt(c.hp.n_embd))


def block(x: F, w: Block, s: KeyValues, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    h = attention(c.norm("attn_norm", x, w.attn_norm), w, s, c)
    x = c.tap("sa_out", x + c.norm("attn_post_norm", h, w.post_attention_norm, normed="norm#3"))
    h = c.tap("ffn_out", geglu(c.norm("ffn_norm", x, w.ffn_norm, normed="norm#4"), w, c))
    return c.tap("l_out", x + c.norm("ffn_post_norm", h, w.post_ffw_norm, normed="norm#5"))


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, then rotated heads, in a sliding block over a window. [T, E] -> [T, E]"""
    hp, num, T, slides = c.hp, c.num, len(h), c.hp.sliding[w.index]
    rope, window = (hp.rope_sliding, hp.window) if slides else (hp.rope, 0)
    q = c.linear("Qcur", h, w, "attn_q").reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    q = c.tap("Qcur#2", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, rope))
    k = c.linear("Kcur", h, w, "attn_k").reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.tap("Kcur#2", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, rope))
    v = c.linear("Vcur", h, w, "attn_v").reshape(k.shape)
    q = c.tap("scale", q * num.inverse_root(hp.query_dim))
    k, v = s.append(num.store(k), num.store(v))  # [S, G, D]
    o = c.tap("kqv_out", c.attention(q, k, v, 1.0, window))  # [T, H*D]
    return c.tap("mul_mat", num.linear(w.attn_output, o))


def geglu(h: F, w: Block, c: Call) -> F:
    """down(gelu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.tap("ffn_gate", c.num.linear(w.ffn_gate, h))
    up = c.tap("ffn_up", c.num.linear(w.ffn_up, h))
    return c.num.linear(w.ffn_down, c.tap("ffn_geglu", c.num.geglu(gate, up)))


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Matrix, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    logits = c.num.linear(output, h)
    if c.hp.softcap:
        logits = c.num.softcap(c.tap("mul_mat", logits), c.hp.softcap)
    return c.tap("result_output", logits)
