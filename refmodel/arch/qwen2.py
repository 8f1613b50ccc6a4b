"""qwen2: dense Qwen2 and Qwen2.5. Pre-norm blocks of grouped-query attention with biased projections, and SwiGLU.

Source: arXiv:2407.10671; llama.cpp src/models/qwen2.cpp.
"""

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Output, Weight
from .facts import Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import always_attention, keys_and_values
from .metadata import common, with_dense
from .shapes import ATTENTION, QKV, Shapes, attention_shapes, dense, norms, outside

BIASED: tuple[str, ...] = QKV
SCALED: tuple[str, ...] = ATTENTION  # its graph reads none of the FFN
FUSED: tuple[str, ...] = ("attn_qkv",)
FACTS = Facts(biased=True)
kind, new_state = always_attention, keys_and_values


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    hp = with_dense(k, common(k))
    k.multiple("embedding_length", hp.n_embd, "attention.head_count", hp.n_head)
    k.only("attention.key_length", hp.n_embd // hp.n_head)
    return hp


def globals(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors outside of blocks for V = n_vocab tokens: the required ones, and those that a file may have."""
    required, optional = outside(hp, n_vocab)
    return required, optional | {"output.bias": (n_vocab,)}


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    return norms(hp, "attn_norm", "ffn_norm") | attention_shapes(hp) | dense(hp)


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them."""
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
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(q, c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(k, c.pos, hp.rope))
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim), hp.window_of(w.index)))  # [T, H*D]
    return c.linear("mul_mat", o, w.attn_output)


def swiglu(h: F, w: Block, c: Call) -> F:
    """down(silu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w.ffn_gate)
    up = c.linear("ffn_up", h, w.ffn_up)
    return c.linear("ffn_out", c.tap("ffn_swiglu", c.num.swiglu(gate, up)), w.ffn_down)


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Output, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    return c.tap("result_output", c.logits(h, output))
