"""Faults of norms: 1 + w, which the converters of some families fold into the file, and which norm is applied where."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ..arrays import F
from ..ops.ieee import bfloat
from .altered import At
from .changes import any_of, hparams, outside, taps, vectors
from .fault import Change, Engine, Fault

OF_SUM = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
OF_HEADS = ("attn_q_norm", "attn_k_norm")
SITES_OF_SUM = ("input norm", "post attention norm", "ffn norm", "post ffn norm", "last norm")
SITES_OF_HEADS = ("q normed", "k normed")
READS = ("q part", "q product", "k product")
EVERY = (*SITES_OF_SUM, *SITES_OF_HEADS)
MEANS = ("input mean", "mean 1", "mean 2", "mean 3", "mean 4", "last mean", "q mean", "k mean")

OF_SUMS = tuple(f"{name}.weight" for name in (*OF_SUM, "output_norm"))

new = partial(
    Fault,
    family="norms",
    at=EVERY,
    right="refmodel.forward.call:norm",
    tensors=tuple(f"{name}.weight" for name in (*OF_SUM, *OF_HEADS, "output_norm")),
)


def of_output(change: Callable[[F], F]) -> Change:
    """Other weights of the norm after the last block."""

    def on(e: Engine) -> Engine | None:
        return outside(e, f"{e.model.arch.FACTS.last_norm}.weight", change)

    return on


def all_norms(change: Callable[[F], F]) -> Change:
    """Other weights in all norms but that of the delta rule's output."""
    return any_of(*(vectors(name, lambda w, hp: change(w)) for name in (*OF_SUM, *OF_HEADS)), of_output(change))


def of_sums(change: Callable[[F], F]) -> Change:
    """Other weights in the norms of residual sums, where the model has norms of heads besides, which keep theirs."""
    whole = any_of(*(vectors(name, lambda w, hp: change(w)) for name in OF_SUM), of_output(change))
    return lambda e: whole(e) if any(block.has(name) for block in e.model.blocks for name in OF_HEADS) else None


def one_mean(which: str) -> Callable[[F, At], F]:
    """The heads of queries or keys, normed by one mean of all heads of a token."""

    def patch(x: F, at: At) -> F:
        heads = of_heads(which)(x, at)
        weight = getattr(at.w, f"attn_{which}_norm").dense(at.c.num.dtype)
        mean = np.asarray(at.c.num.rms_norm(np.ascontiguousarray(heads.reshape(len(x), -1)), at.c.hp.eps))
        return mean.reshape(x.shape) * weight

    return patch


def on_the_branch(x: F, at: At) -> F:
    """The residual sum, to which the normed output of attention or of the delta rule is added."""
    weight = at.w.post_attention_norm.dense(at.c.num.dtype)
    return at.x + np.asarray(at.c.num.rms_norm(at.seen["mixed"], at.c.hp.eps) * weight)


def of_heads(which: str) -> Callable[[F, At], F]:
    """The heads of queries or keys, as they are before they are normed."""
    return lambda x, at: at.seen[f"{which} part" if f"{which} part" in at.seen else f"{which} product"].reshape(x.shape)


FAULTS: list[Fault] = [
    new(
        id="F14",
        name="norm-one-missing",
        says="The norms multiply by w, where 1 + w is meant.",
        evidence="llmman #151, shainet #176",
        fix="a GGUF has 1 + w in its norms already; weights of the original checkpoint need the 1 added, once",
        change=all_norms(lambda w: w - 1),
    ),
    new(
        id="F15",
        name="norm-one-twice",
        says="1 is added to the weights of the norms, to which the converter added it already.",
        evidence="quant.cpp a44df86 and 9b9ce04, mlx-vlm #2041, llama.cpp #23758",
        fix="a GGUF has 1 + w in its norms already: multiply by the file's weight as it is",
        change=all_norms(lambda w: w + 1),
    ),
    new(
        id="F15",
        name="head-norm-one-twice",
        says="1 is added to the weights of the norms of queries and keys, to which the converter added it already.",
        evidence="mlx-vlm #2114",
        fix="a GGUF has 1 + w in attn_q_norm and attn_k_norm already: multiply by the file's weight as it is",
        at=SITES_OF_HEADS,
        change=any_of(*(vectors(name, lambda w, hp: w + 1) for name in OF_HEADS)),
        tensors=("attn_q_norm.weight", "attn_k_norm.weight"),
    ),
    new(
        id="F15",
        name="sum-norm-one-twice",
        says="1 is added to the weights of all norms but those of queries and keys, to which the converter added it already.",
        evidence="mlx-vlm #2114: the converter of one runtime, the norm of another",
        fix="a GGUF has 1 + w in its norms already: multiply by the file's weight as it is",
        at=SITES_OF_SUM,
        change=of_sums(lambda w: w + 1),
        tensors=OF_SUMS,
    ),
    new(
        id="F14",
        name="sum-norm-one-missing",
        says="The norms of residual sums multiply by w, where 1 + w is meant; those of queries and keys are right.",
        evidence="llmman #151, shainet #176",
        fix="a GGUF has 1 + w in its norms already; weights of the original checkpoint need the 1 added, once",
        at=SITES_OF_SUM,
        change=of_sums(lambda w: w - 1),
        tensors=OF_SUMS,
    ),
    new(
        id="F14",
        name="head-norm-one-missing",
        says="The norms of queries and keys multiply by w, where 1 + w is meant.",
        evidence="llmman #151, shainet #176",
        fix="a GGUF has 1 + w in attn_q_norm and attn_k_norm already; those of the original checkpoint need the 1 added, once",
        at=SITES_OF_HEADS,
        change=any_of(*(vectors(name, lambda w, hp: w - 1) for name in OF_HEADS)),
        tensors=("attn_q_norm.weight", "attn_k_norm.weight"),
    ),
    new(
        id="norms-weightless",
        name="norms-weightless",
        says="The norms are not multiplied by their weights.",
        evidence="a kind of fault of norms whose weights were not loaded",
        fix="multiply each normed sum, and each normed head, by the weight of its norm",
        change=all_norms(np.ones_like),
    ),
    new(
        id="F16",
        name="gated-norm-one-added",
        says="1 is added to the weight of the norm of the delta rule's output, which is stored without an offset in all files.",
        evidence="shainet #176",
        fix="multiply by ssm_norm as it is: only the other norms of the checkpoint are stored as w of 1 + w",
        right="refmodel.arch.qwen35:delta_net",
        at=("delta normed",),
        change=vectors("ssm_norm", lambda w, hp: w + 1),
        tensors=("ssm_norm.weight",),
    ),
    new(
        id="F17",
        name="norm-one-in-bfloat",
        says="1 + w of the norms is computed in bfloat16, which rounds small w away.",
        evidence="lmdeploy #4790",
        fix="add the 1 in float32, and store the norms as F32",
        change=all_norms(bfloat),
    ),
    new(
        id="F18",
        name="norm-one-on-every-reload",
        says="A conversion in place adds 1 to the norms again each time the weights are reloaded: here twice.",
        evidence="Megatron-Bridge #1929",
        fix="convert into a copy, or mark converted weights",
        change=all_norms(lambda w: w + 2),
    ),
    new(
        id="F19",
        name="post-norm-on-branch",
        says="post_attention_norm norms what is added to the residual sum, not the sum before the feed-forward part.",
        evidence="the norm of that name is on the branch in Gemma 3; an inspection of a Qwen3.5 file lists it so",
        fix="add the unnormed output to the sum, then norm the sum with post_attention_norm for the feed-forward part",
        right="refmodel.arch.qwen35:block",
        at=("residual", "ffn norm"),
        change=taps(
            {"residual": on_the_branch, "ffn norm": lambda x, at: at.seen["residual"]},
            ("mixed", "residual"),
            lambda model: model.blocks[0].has("post_attention_norm") and not model.blocks[0].has("ffn_norm"),
        ),
        tensors=("post_attention_norm.weight",),
    ),
    new(
        id="F07",
        name="qk-norm-skipped",
        says="Queries and keys are not normed before they are rotated.",
        evidence="aprender #2085, tt-mlir #9042, sparkinfer #149",
        fix="norm each head of the queries and of the keys, multiply by attn_q_norm and attn_k_norm, then rotate",
        right="refmodel.arch.qwen3:attention",
        at=SITES_OF_HEADS,
        change=taps({f"{which} normed": of_heads(which) for which in "qk"}, READS),
        tensors=("attn_q_norm.weight", "attn_k_norm.weight"),
    ),
    new(
        id="norm-of-all-heads",
        name="norm-of-all-heads",
        says="Heads are normed by one mean of all heads of a token, where each has its own.",
        evidence="a kind of fault: OLMo 2 norms so, Qwen3 does not",
        fix="norm over the last axis of [T, H, D]",
        right="refmodel.arch.qwen3:attention",
        at=SITES_OF_HEADS,
        change=taps({f"{which} normed": one_mean(which) for which in "qk"}, READS, lambda model: model.hp.n_head > 1),
        tensors=("attn_q_norm.weight", "attn_k_norm.weight"),
    ),
    new(
        id="eps-ten-times",
        name="eps-ten-times",
        says="The epsilon of the norms is ten times the model's.",
        evidence="a default of 1e-5 where the file says 1e-6",
        fix="read attention.layer_norm_rms_epsilon",
        right="refmodel.arch.metadata:common",
        at=MEANS,
        change=hparams(lambda hp: replace(hp, eps=10 * hp.eps)),
        keys=("attention.layer_norm_rms_epsilon",),
    ),
]
