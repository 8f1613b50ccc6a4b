"""llama: Llama 2 and 3, Mistral, TinyLlama, SmolLM. Pre-norm blocks of grouped-query attention and SwiGLU.

Source: arXiv:2302.13971; llama.cpp src/models/llama.cpp.
"""

from dataclasses import dataclass

from ..arrays import DType, F, Matrix
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Weight
from ..gguf.metadata import Metadata
from ..ops.rope import Rope
from .metadata import ATTENTION, FFN, MAX_BLOCKS, counted, head_counts, require, rotation

BIASED: tuple[str, ...] = ATTENTION + FFN
SCALED: tuple[str, ...] = ATTENTION + FFN
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


def hparams(md: Metadata, rope_freqs: tuple[float, ...]) -> Hparams:
    a = "llama"
    n_layer = counted(md, f"{a}.block_count", md.int(f"{a}.block_count"), most=MAX_BLOCKS)
    n_embd = counted(md, f"{a}.embedding_length", md.int(f"{a}.embedding_length"))
    n_head, n_head_kv = head_counts(md, a, n_layer)
    head_dim = counted(md, f"{a}.attention.key_length", md.int(f"{a}.attention.key_length", n_embd // n_head))
    md.int(f"{a}.context_length")
    require(md, f"{a}.attention.value_length", md.int(f"{a}.attention.value_length", head_dim), head_dim)
    require(md, f"{a}.rope.dimension_count", md.int(f"{a}.rope.dimension_count", head_dim), head_dim)
    require(md, f"{a}.expert_count", md.int(f"{a}.expert_count", 0), 0)
    return Hparams(
        n_layer=n_layer,
        n_nextn=0,
        n_embd=n_embd,
        n_ff=md.per_block(f"{a}.feed_forward_length", n_layer)[0],
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=md.float(f"{a}.attention.layer_norm_rms_epsilon"),
        rope=rotation(md, a, head_dim, adjacent=True, factors=rope_freqs),
    )


def globals(hp: Hparams, n_vocab: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    required = {"token_embd.weight": (n_vocab, hp.n_embd), "output_norm.weight": (hp.n_embd,)}
    return required, {"output.weight": (n_vocab, hp.n_embd), "rope_freqs.weight": (hp.rope.n_rot // 2,)}


def shapes(hp: Hparams, index: int) -> dict[str, tuple[int, ...]]:
    E, Q, KV = hp.n_embd, hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    return {
        "attn_norm.weight": (E,),
        "attn_q.weight": (Q, E),
        "attn_k.weight": (KV, E),
        "attn_v.weight": (KV, E),
        "attn_output.weight": (E, Q),
        "ffn_norm.weight": (E,),
        "ffn_gate.weight": (hp.n_ff, E),
        "ffn_up.weight": (hp.n_ff, E),
        "ffn_down.weight": (E, hp.n_ff),
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
    h = c.norm("ffn_norm", x, w.ffn_norm, normed="norm#1")
    return c.tap("l_out", x + swiglu(h, w, c))


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with rotated heads. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    q = c.linear("Qcur", h, w, "attn_q").reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w, "attn_v").reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w, "attn_k").reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(q, c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(k, c.pos, hp.rope))
    k, v = s.append(num.store(k), num.store(v))  # [S, G, D]
    o = c.tap("kqv_out", c.attention(q, k, v, num.inverse_root(hp.head_dim)))  # [T, H*D]
    return c.linear("attn_out", o, w, "attn_output")


def swiglu(h: F, w: Block, c: Call) -> F:
    """down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w, "ffn_gate")
    up = c.linear("ffn_up", h, w, "ffn_up")
    return c.linear("ffn_out", c.tap("ffn_swiglu", c.num.swiglu(gate, up)), w, "ffn_down")


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Matrix, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.num.linear(output, h))
