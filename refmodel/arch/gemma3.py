"""gemma3: Gemma 3. Attention over a sliding window in most blocks, over all tokens in some; norms before and after each part.

Source: arXiv:2503.19786; llama.cpp src/models/gemma3.cpp.
"""

import math
from dataclasses import replace

from ..arrays import F
from ..forward.call import Call
from ..forward.state import KeyValues
from ..forward.weights import Block, Output, Weight
from .facts import USUAL, Facts
from .hparams import Hparams
from .keys import Keys
from .kinds import Kinds, keys_and_values
from .metadata import common, with_dense
from .rotation import rotation
from .shapes import ATTENTION, QKV, Shapes, dense, normed_attention, norms, outside

BIASED: tuple[str, ...] = QKV
SCALED: tuple[str, ...] = ATTENTION  # its graph reads none of the FFN
FUSED: tuple[str, ...] = ("attn_qkv",)
PATTERN = "attention.sliding_window_pattern"  # a list, or the interval itself
FACTS = Facts(
    kinds=Kinds(
        listed=PATTERN,
        kind="sliding",
        interval=PATTERN,
        default=6,
        both=False,
        reader="0c1e570 (llama-cpp-python 0.3.36) reads the list; up to 4df29be (0.3.35) a list is passed over and the "
        "interval is 6",
        only="attention.sliding_window",
    ),
    gelu=True,
    embedding_scaled=True,
    typical={"attention.sliding_window": 512, PATTERN: 2},
    meanings={
        "attn_norm.weight": "RMS norm of the block's input; the file has 1 + w already",
        "post_attention_norm.weight": "RMS norm of what attention gives, before it is added to the residual sum",
        "post_ffw_norm.weight": "RMS norm of what the feed-forward part gives, before it is added to the residual sum",
        "ffn_gate.weight": "its GELU multiplies ffn_up",
    },
    semantics={**USUAL, "feed-forward": "down(gelu(gate(x)) * up(x)), gelu by tanh", "embedding": "times sqrt(E)"},
    kind_meanings={"sliding": "attention to the last {window} tokens, itself among them"},
)
new_state, globals = keys_and_values, outside


def hparams(k: Keys) -> Hparams:
    """The sizes of the model. MetadataError names a key that is missing or out of its range."""
    hp = with_dense(k, common(k))
    window = k.count("attention.sliding_window", 0, 0)
    return replace(
        hp,
        window=window,
        sliding=sliding_blocks(k, hp.n_layer) if window else (False,) * hp.n_layer,
        rope_sliding=rotation(k, hp.head_dim, False, "rope.freq_base_swa", scaled=False) if window else None,
        query_dim=hp.n_embd // hp.n_head if hp.n_layer == 62 else hp.head_dim,  # 62 blocks: the 27B
        softcap=k.real("final_logit_softcapping", 0.0, 1e-6, 1e6, none=True),
    )


def sliding_blocks(k: Keys, n_layer: int) -> tuple[bool, ...]:
    """Whether each block slides: by the file's own list, else all but each sixth, or the period that the file names.

    MetadataError for a list of another length. Source: load_swa_pattern.
    """
    if PATTERN in k and k.md.fields[k.full(PATTERN)].item is not None:
        return tuple(bool(slides) for slides in k.md.per_block(k.full(PATTERN), n_layer))
    period = k.count(PATTERN, 6, 0)
    return tuple(period == 0 or i % period < period - 1 for i in range(n_layer))


def shapes(hp: Hparams, index: int) -> Shapes:
    """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
    own = norms(hp, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    return own | normed_attention(hp) | dense(hp)


def kind(hp: Hparams, index: int) -> str:
    """A word for the kind of a block, by its index in the file."""
    return "sliding" if hp.sliding[index] else "attention"


def embed(x: F, c: Call) -> F:
    """Embedded tokens [T, E] as the first block reads them, times √E."""
    return c.tap("inp_scaled", c.tap("embd", x) * math.sqrt(c.hp.n_embd))


def block(x: F, w: Block, s: KeyValues, c: Call) -> F:
    """One decoder block, [T, E] -> [T, E]."""
    h = attention(c.norm("attn_norm", x, w.attn_norm), w, s, c)
    x = c.tap("sa_out", x + c.norm("attn_post_norm", h, w.post_attention_norm, normed="norm#3"))
    h = geglu(c.norm("ffn_norm", x, w.ffn_norm, normed="norm#4"), w, c)
    return c.tap("l_out", x + c.norm("ffn_post_norm", h, w.post_ffw_norm, normed="norm#5"))


def attention(h: F, w: Block, s: KeyValues, c: Call) -> F:
    """Grouped-query attention with normed, then rotated heads, in a sliding block over a window. [T, E] -> [T, E]"""
    hp, num, T, slides = c.hp, c.num, len(h), c.hp.sliding[w.index]
    rope, window = (hp.rope_sliding, hp.window) if slides else (hp.rope, 0)
    q = c.linear("Qcur", h, w.attn_q).reshape(T, hp.n_head, hp.head_dim)  # [T, H, D]
    q = c.tap("Qcur#2", num.rope(c.norm("Qcur_normed", q, w.attn_q_norm, normed="norm#1"), c.pos, rope))
    k = c.linear("Kcur", h, w.attn_k).reshape(T, hp.n_head_kv, hp.head_dim)  # [T, G, D]
    k = c.tap("Kcur#2", num.rope(c.norm("Kcur_normed", k, w.attn_k_norm, normed="norm#2"), c.pos, rope))
    v = c.linear("Vcur", h, w.attn_v).reshape(k.shape)
    q = c.tap("scale", q * num.inverse_root(hp.query_dim))
    o = c.tap("kqv_out", c.attention(q, k, v, w, s, 1.0, window))  # [T, H*D]
    return c.linear("mul_mat", o, w.attn_output)


def geglu(h: F, w: Block, c: Call) -> F:
    """down(gelu(gate(h)) · up(h)). [T, E] -> [T, E]"""
    gate = c.linear("ffn_gate", h, w.ffn_gate)
    up = c.linear("ffn_up", h, w.ffn_up)
    return c.linear("ffn_out", c.tap("ffn_geglu", c.num.geglu(gate, up)), w.ffn_down)


def final_norm(x: F, output_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]."""
    return c.norm("result_norm", x, output_norm)


def head(h: F, output: Output, c: Call) -> F:
    """Logits, [T, E] -> [T, V]."""
    logits = c.logits(h, output)
    if c.hp.softcap:
        logits = c.num.softcap(c.tap("mul_mat", logits), c.hp.softcap)
    return c.tap("result_output", logits)
