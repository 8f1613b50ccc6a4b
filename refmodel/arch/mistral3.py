"""mistral3: Ministral 3, Devstral 2. Pre-norm blocks of grouped-query attention, whose queries grow in long contexts, and SwiGLU.

Source: arXiv:2601.08584; arXiv:2501.19399 for the growth; llama.cpp src/models/mistral3.cpp.
"""

from dataclasses import replace

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Output, Weight
from ..ops.attention import growth
from .facts import USUAL, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import always_attention, keys_and_values
from .metadata import common, with_dense
from .rotation import Yarn, divided
from .shapes import ATTENTION, FFN, Shapes, attention_shapes, dense, norms, outside

BIASED: tuple[str, ...] = ATTENTION + FFN
SCALED: tuple[str, ...] = ATTENTION + FFN
FUSED: tuple[str, ...] = ("attn_qkv",)
GROWN = "each grows by {temperature:g} · ln(1 + how many times its position holds {n_trained} tokens) of itself"
FACTS = Facts(
    meanings={"attn_q.weight": "{n_head} queries of {head_dim}; " + GROWN},
    semantics={**USUAL, "query": "times 1 + temperature * log(floor(p / n_trained) + 1) at position p"},
    scaling=("yarn_beta_fast", "yarn_beta_slow", "yarn_log_multiplier"),
)
kind, new_state = always_attention, keys_and_values


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    k.only("expert_count", 0)
    hp = divided(k, with_dense(k, common(k, adjacent=True, yarn=yarn_of(k))))
    temperature = k.real("attention.temperature_scale", 0.0, 1e-6, 1e6, none=True)
    trained = k.count("rope.scaling.original_context_length", k.count("context_length")) if temperature else 0
    return replace(hp, temperature=temperature, n_trained=trained)


def yarn_of(k: Keys) -> Yarn:
    """The numbers of YaRN that a file may set. MetadataError for one that is out of its range."""
    return Yarn(
        fast=k.real("rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6),
        slow=k.real("rope.scaling.yarn_beta_slow", 1.0, 1e-3, 1e6),
        log_multiplier=k.real("rope.scaling.yarn_log_multiplier", 0.0, 1e-6, 1e6, none=True),
    )


def globals(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors outside of blocks for V = n_vocab tokens: the required ones, and those that a file may have."""
    required, optional = outside(hp, n_vocab)
    return required, optional | {"rope_freqs.weight": (hp.rope.n_rot // 2,)}


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
    """Grouped-query attention with rotated heads; queries grow with their position. [T, E] -> [T, E]"""
    hp, num, T = c.hp, c.num, len(h)
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    v = c.linear("Vcur", h, w.attn_v).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.linear("Kcur", h, w.attn_k).reshape(v.shape)
    q = c.tap("Qcur#2", num.rope(q, c.pos, hp.rope))
    k = c.tap("Kcur#2", num.rope(k, c.pos, hp.rope))
    if hp.temperature:
        q = c.tap("Qcur_attn_temp_scaled", q * growth(c.pos, hp.n_trained, hp.temperature).astype(num.dtype)[:, None, None])
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, num.inverse_root(hp.head_dim), hp.window_of(w.index)))  # [T, H*D]
    return c.linear("attn_out", o, w.attn_output)


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
