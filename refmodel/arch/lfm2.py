"""lfm2: LFM2, LFM2.5. Pre-norm blocks mix tokens by a short convolution between two gates, or by attention; then SwiGLU.

Source: arXiv:2511.23404; llama.cpp src/models/lfm2.cpp.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import DType, F
from ..forward.call import Call
from ..forward.state import Convolved, KeyValues, State
from ..forward.weights import Block, Output, Weight
from .facts import USUAL, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import Kinds, keys_and_values
from .metadata import common, with_dense
from .shapes import ATTENTION, QKV, Shapes, dense, normed_attention, norms

BIASED: tuple[str, ...] = QKV
SCALED: tuple[str, ...] = ATTENTION  # its graph reads none of the convolution and of the FFN
FUSED: tuple[str, ...] = ("attn_qkv",)
HEADS = "attention.head_count_kv"  # a list: 0 for a block with a convolution
FACTS = Facts(
    kinds=Kinds(listed=HEADS, kind="conv", both=True, reader="every llama.cpp that knows lfm2 reads it"),
    typical={HEADS: [0, 2, 0, 2], "shortconv.l_cache": 3},
    meanings={
        "shortconv.in_proj.weight": "{n_embd} gates, {n_embd} gates and {n_embd} values, in this order; the first gates multiply "
        "the values before the convolution, the second ones what it gives",
        "shortconv.conv.weight": "causal, {d_conv} taps for each channel, the last one for the token itself; no SiLU follows",
        "shortconv.out_proj.weight": "back to {n_embd}, in place of attn_output",
    },
    semantics={**USUAL, "convolution": "causal, of gate * x, times another gate; no silu"},
    kind_meanings={"conv": "a convolution over the last {d_conv} tokens; it remembers {n_embd} numbers of each but the newest"},
    last_norm="token_embd_norm",  # so called by mistake in llama.cpp's list: no embedding is normed
)


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    hp = with_dense(k, common(k, some_heads=True))
    k.multiple("embedding_length", hp.n_embd, "attention.head_count", hp.n_head)
    k.only("attention.key_length", hp.n_embd // hp.n_head)
    if window := k.count("attention.sliding_window", 0, 0):
        raise k.refused("attention.sliding_window", window, "expected 0; a window is of audio decoders, which are not supported")
    heads = k.md.per_block(k.full(HEADS), hp.n_layer, hp.n_head_kv)
    return replace(
        hp,
        recurrent=tuple(int(n) == 0 for n in heads),
        d_conv=k.width("shortconv.l_cache", hp.n_embd, least=2),
    )


def globals(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors outside of blocks for V = n_vocab tokens: the required ones, and those that a file may have."""
    E = hp.n_embd
    return {"token_embd.weight": (n_vocab, E), **norms(hp, FACTS.last_norm)}, {"output.weight": (n_vocab, E)}


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    E, K = hp.n_embd, hp.d_conv
    conv = {"shortconv.in_proj.weight": (3 * E, E), "shortconv.conv.weight": (E, K), "shortconv.out_proj.weight": (E, E)}
    return norms(hp, "attn_norm", "ffn_norm") | (conv if hp.recurrent[index] else normed_attention(hp)) | dense(hp)


def kind(hp: Hparams, index: int) -> str:
    """A word for the kind of a block, by its index in the file."""
    return "conv" if hp.recurrent[index] else "attention"


def new_state(hp: Hparams, index: int, dtype: DType) -> State:
    """What a position remembers before the first token: zeros of that dtype, or no keys and values yet."""
    return Convolved(np.zeros((hp.d_conv - 1, hp.n_embd), dtype)) if hp.recurrent[index] else keys_and_values(hp, index, dtype)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them."""
    return c.tap("model.embed_tokens", x)


def block(x: F, w: Block, s: Any, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]. llama.cpp calls the second norm ffn_out."""
    mix, last = (short_convolution, "norm#1") if c.hp.recurrent[w.index] else (attention, "norm#3")
    x = c.tap("add", x + mix(c.norm("model.layers.{}.operator_norm", x, w.attn_norm), w, s, c))
    return c.tap("l_out", x + swiglu(c.norm("model.layers.{}.ffn_out", x, w.ffn_norm, normed=last), w, c))


def short_convolution(h: F, w: Block, s: Convolved, c: Call) -> F:
    """A causal convolution of each channel over the tokens, gated before and after. [T, E] -> [T, E]"""
    before, after, x = np.split(c.linear("model.layers.{}.conv.in_proj", h, w.shortconv_in_proj), 3, axis=1)  # [T, E] each
    u = after * c.each(convolution, [c.tap("mul", before * x)], w, s)
    return c.linear("model.layers.{}.conv.out_proj", c.tap("mul#1", u), w.shortconv_out_proj)


def convolution(u: F, w: Block, s: Convolved, c: Call) -> F:
    """A causal convolution of each channel over one sequence. [T, E] -> [T, E]; replaces s.conv [K-1, E]."""
    T = len(u)
    u = c.tap("concat", np.concatenate([s.conv, u]), transposed=True)  # [K-1+T, E]
    s.conv = u[T:].copy()
    u = c.num.causal_conv1d(np.ascontiguousarray(u), w.shortconv_conv.dense(c.num.dtype))
    return c.tap("model.layers.{}.conv.conv", u)


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, then rotated heads. [T, E] -> [T, E]"""
    hp, num, T, name = c.hp, c.num, len(h), "model.layers.{}.self_attn."
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("rope", num.rope(c.norm(f"{name}q_layernorm", q, w.attn_q_norm, normed="norm#1"), c.pos, hp.rope))
    k = c.tap("rope#1", num.rope(c.norm(f"{name}k_layernorm", k, w.attn_k_norm, normed="norm#2"), c.pos, hp.rope))
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim)))  # [T, H*D]
    return c.linear(f"{name}out_proj", o, w.attn_output)


def swiglu(h: F, w: Block, c: Call) -> F:
    """down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w.ffn_gate)
    up = c.linear("ffn_up", h, w.ffn_up)
    return c.linear("mul_mat", c.tap("ffn_swiglu", c.num.swiglu(gate, up)), w.ffn_down)


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Output, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.logits(h, output))
