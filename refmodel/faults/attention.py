"""Faults of attention: its gate, its scale, its mask, its cache."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from ..model.model import Model
from ..ops.ieee import bfloat
from .altered import At
from .changes import hparams, operation, taps
from .fault import LATER, Fault

new = partial(Fault, family="attention", at=("attention",), right="refmodel.ops.attention:attention")
GATE = partial(new, at=("attention gate",), right="refmodel.arch.qwen35:full_attention", tensors=("attn_q.weight",))


def scaled(factor: Any) -> Any:
    """An attention whose scores are multiplied by factor(hp) besides their scale."""

    def attention(healthy: Any, hp: Hparams, q: F, k: F, v: F, scale: float, *given: Any) -> F:
        return np.asarray(healthy(q, k, v, scale * factor(hp), *given))

    return attention


def tiled(healthy: Any, hp: Hparams, q: F, k: F, v: F, *given: Any) -> F:
    """Query head h reads key head h mod G instead of h // (H/G)."""
    of = [h % k.shape[1] for h in range(q.shape[1])]
    return np.asarray(healthy(q, np.ascontiguousarray(k[:, of]), np.ascontiguousarray(v[:, of]), *given))


def first_group(healthy: Any, hp: Hparams, q: F, k: F, v: F, *given: Any) -> F:
    """Every query head reads key head 0."""
    return np.asarray(healthy(q, np.ascontiguousarray(k[:, :1]), np.ascontiguousarray(v[:, :1]), *given))


def none(q: F) -> F:
    """The scores of an attention whose scores nothing asks for."""
    return np.zeros((0, 0, 0), q.dtype)


def to_itself_not(healthy: Any, hp: Hparams, q: F, k: F, v: F, scale: float, kq: F, kq_soft_max: F, window: int) -> F:
    """A token sees the tokens before it only; the first one sees itself."""
    out = healthy(q, k, v, scale, kq, kq_soft_max, window)
    for t in range(len(q)):
        seen = len(k) - len(q) + t
        if seen:
            out[t : t + 1] = healthy(q[t : t + 1], k[:seen], v[:seen], scale, none(q), none(q), window)
    return np.asarray(out)


def future_seen(healthy: Any, hp: Hparams, q: F, k: F, v: F, scale: float, kq: F, kq_soft_max: F, window: int) -> F:
    """Every token of a call sees all of the call, also what comes after it."""
    rows = [healthy(q[t : t + 1], k, v, scale, none(q), none(q), 0) for t in range(len(q))]
    return np.concatenate(rows)


def hole(healthy: Any, hp: Hparams, q: F, k: F, v: F, *given: Any) -> F:
    """When one token is decoded, the token before it is not in the cache."""
    if len(q) == 1 and len(k) > 1:
        k, v = k.copy(), v.copy()
        k[-2], v[-2] = 0, 0
    return np.asarray(healthy(q, k, v, *given))


def coarse(x: F, at: At) -> F:
    """The keys [S, G*D] of earlier calls as 4-bit codes with a scale for each head keep them; those of this call as they are."""
    past, heads = len(x) - len(at.c.pos), x.reshape(len(x), at.c.hp.n_head_kv, -1)
    step = np.abs(heads).max(axis=-1, keepdims=True) / 7
    rounded = (np.rint(heads / np.where(step, step, 1)) * step).astype(x.dtype).reshape(x.shape)
    return np.concatenate([rounded[:past], x[past:]])


def biased(model: Model) -> bool:
    """Whether the files of an architecture have biases of attention, and this one does."""
    return any(block.has("attn_q") and block.attn_q.bias is not None for block in model.blocks)


def unbiased(x: F, at: At, which: str) -> F:
    """A product of attention before its bias is added, `q`, `k` or `v`, in the shape of x."""
    return at.seen[f"{which} product"].reshape(x.shape)


def replace_window(hp: Hparams, window: int) -> Hparams:
    """The same sizes with another window, where there is one."""
    return replace(hp, window=window) if any(hp.sliding) else hp


FAULTS: list[Fault] = [
    GATE(
        id="F11",
        name="gate-missing",
        says="The output of attention is not multiplied by its gate.",
        evidence="TensorRT-LLM #9060",
        fix="multiply what attention gives by the sigmoid of the gates in attn_q, before attn_output",
        change=taps({"attention gate": lambda x, at: np.ones_like(x)}),
    ),
    GATE(
        id="F11",
        name="gate-silu",
        says="The gate of attention is a SiLU, where a sigmoid is meant.",
        evidence="TensorRT-LLM #9060; the activation of another gate",
        fix="use the sigmoid for the gate in attn_q; SiLU belongs to attn_gate of the delta rule",
        change=taps({"attention gate": lambda x, at: at.c.num.silu(at.seen["q gate"].reshape(x.shape))}, ("q gate",)),
    ),
    GATE(
        id="F11",
        name="gate-sigmoid-twice",
        says="The gate of attention is passed through the sigmoid twice, because a buffer is changed in place.",
        evidence="ollama #14077",
        fix="write the sigmoid into another buffer, or apply it once",
        change=taps({"attention gate": lambda x, at: at.c.num.sigmoid(x)}),
    ),
    new(
        id="F12",
        name="attention-zero",
        says="Attention gives zeros, because its cache was written over by other blocks.",
        evidence="vllm-ascend #3571, vllm-ascend #3572",
        fix="give blocks with attention a cache of their own, apart from the states of the other blocks",
        change=taps({"attention": lambda x, at: np.zeros_like(x)}),
    ),
    new(
        id="F13",
        name="head-dim-from-width",
        says="Scores are scaled by the width of a head that embedding_length / head_count gives, not by its own width.",
        evidence="candle #3917, vllm #2622, quant.cpp 7d10b63",
        fix="read attention.key_length",
        right="refmodel.arch.metadata:head_widths",
        change=operation(
            "attention",
            scaled(lambda hp: (hp.head_dim * hp.n_head / hp.n_embd) ** 0.5),
            lambda model: model.hp.head_dim * model.hp.n_head != model.hp.n_embd and not model.hp.query_dim,
        ),
        keys=("attention.key_length",),
    ),
    new(
        id="attention-scale-missing",
        name="attention-scale-missing",
        says="The scores of attention are not multiplied by D^-0.5.",
        evidence="a kind of kernel fault",
        fix="multiply the scores by the inverse square root of attention.key_length, once",
        change=operation(
            "attention", scaled(lambda hp: hp.head_dim**0.5), lambda model: model.hp.head_dim > 1 and not model.hp.query_dim
        ),
    ),
    new(
        id="attention-scale-twice",
        name="attention-scale-twice",
        says="The scores of attention are multiplied by D^-0.5 twice: once with the queries, once in the kernel.",
        evidence="a kind of kernel fault",
        fix="multiply the scores by the inverse square root of attention.key_length, once",
        change=operation("attention", scaled(lambda hp: hp.head_dim**-0.5), lambda model: model.hp.head_dim > 1),
    ),
    new(
        id="query-unscaled",
        name="query-unscaled",
        says="The queries are not scaled before they are scored.",
        evidence="a kind of fault of models that scale the queries, not the scores",
        fix="multiply the rotated queries by the inverse square root that the architecture says",
        right="refmodel.arch.gemma3:attention",
        at=("q scaled",),
        change=taps({"q scaled": lambda x, at: at.seen["q rotated"].reshape(x.shape)}, ("q rotated",)),
        keys=("attention.key_length",),
    ),
    new(
        id="attention-bias-missing",
        name="attention-bias-missing",
        says="The biases of attn_q, attn_k and attn_v are not added.",
        evidence="a kind of loading fault of models whose attention has biases",
        fix="add attn_q.bias, attn_k.bias and attn_v.bias to the products",
        right="refmodel.forward.call:linear",
        at=("q biased", "k biased", "v biased"),
        change=taps({f"{x} biased": partial(unbiased, which=x) for x in "qkv"}, tuple(f"{x} product" for x in "qkv"), biased),
        tensors=("attn_q.bias", "attn_k.bias", "attn_v.bias"),
    ),
    new(
        id="gqa-tiled",
        name="gqa-tiled",
        says="Query head h reads key head h mod G, where groups of neighbours share a key head.",
        evidence="the class of F20 in attention",
        fix="let query head h read key head h // (H / G)",
        change=operation("attention", tiled, lambda model: model.hp.n_head > model.hp.n_head_kv > 1),
        keys=("attention.head_count_kv",),
    ),
    new(
        id="gqa-first",
        name="gqa-first",
        says="Every query head reads key head 0, where each group of query heads has a key head of its own.",
        evidence="a kind of fault of attention with one key head, given a model with several",
        fix="let query head h read key head h // (H / G)",
        change=operation("attention", first_group, lambda model: model.hp.n_head_kv > 1),
        keys=("attention.head_count_kv",),
    ),
    new(
        id="mask-excludes-self",
        name="mask-excludes-self",
        says="A token does not attend to itself: the mask begins one too early.",
        evidence="a kind of mask fault",
        fix="let a query see all keys up to its own position",
        change=operation("attention", to_itself_not),
    ),
    new(
        id="mask-missing",
        name="mask-missing",
        says="Tokens of a prompt see the tokens after them.",
        evidence="a kind of mask fault",
        fix="mask keys whose position is larger than the query's",
        change=operation("attention", future_seen),
    ),
    new(
        id="window-ignored",
        name="window-ignored",
        says="Blocks with a sliding window attend to all tokens.",
        evidence="a kind of loading fault of models with a window",
        fix="read attention.sliding_window, and which blocks slide",
        right="refmodel.arch.gemma3:attention",
        change=hparams(lambda hp: replace_window(hp, 1 << 30)),
        keys=("attention.sliding_window",),
    ),
    new(
        id="window-off-by-one",
        name="window-off-by-one",
        says="A sliding window is one token too long: the token itself is not counted.",
        evidence="two conventions of a window's length",
        fix="a query sees attention.sliding_window tokens, itself among them",
        right="refmodel.ops.attention:first_seen",
        change=hparams(lambda hp: replace_window(hp, hp.window + 1)),
        keys=("attention.sliding_window",),
    ),
    new(
        id="cache-hole",
        name="cache-hole",
        says="When a token is decoded, the token before it is missing from the cache.",
        evidence="a kind of cache fault",
        fix="write a token's key and value before the next one reads them",
        right="refmodel.forward.state:append",
        change=operation("attention", hole),
        when=LATER,
    ),
    new(
        id="cache-bfloat",
        name="cache-bfloat",
        says="Keys and values are kept as bfloat16, with 8 bits of precision.",
        evidence="a choice of some engines; llama.cpp keeps half floats",
        fix="keep float16 or float32 for a comparison",
        right="refmodel.ops.attention:as_it_is",
        at=("keys", "values"),
        change=operation("store", lambda healthy, hp, x: healthy(bfloat(x.astype(np.float32)).astype(x.dtype))),
    ),
    new(
        id="F70",
        name="decode-reads-coarse-keys",
        says="The prompt attends to keys in full precision, while decoding reads keys that were quantized.",
        evidence="quant.cpp f4934e9",
        fix="let both read the same cache, or quantize keys with more bits",
        at=("keys",),
        change=taps({"keys": coarse}),
        when=LATER,
    ),
]
