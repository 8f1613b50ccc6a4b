"""Faults of how the parts of a block are joined: residual sums, norms that are left out, parts that are read in another's place."""

from functools import partial

import numpy as np

from ..model.model import Model
from .changes import operation, outside, taps
from .fault import Engine, Fault
from .norms import MEANS

new = partial(Fault, family="wiring", evidence="a kind of wiring fault", right="refmodel.arch.qwen3:block")


def on_the_branches(model: Model) -> bool:
    """Whether what attention and the feed-forward part give is normed before it is added."""
    return all(block.has("post_ffw_norm") for block in model.blocks)


def weightless(e: Engine) -> Engine | None:
    """The engine whose norm after the last block has no weight."""
    return outside(e, f"{e.model.arch.FACTS.last_norm}.weight", np.ones_like)


FAULTS: list[Fault] = [
    new(
        id="residual-of-attention-missing",
        name="residual-of-attention-missing",
        says="The block's input is not added to what attention, the delta rule or the convolution gives.",
        fix="add the block's input, as it was before the norm",
        at=("residual",),
        change=taps({"residual": lambda x, at: x - at.x}),
    ),
    new(
        id="residual-of-ffn-missing",
        name="residual-of-ffn-missing",
        says="What the feed-forward part reads is not added to what it gives.",
        fix="add the residual sum, as it was before the norm",
        at=("output",),
        change=taps({"output": lambda x, at: x - at.seen["residual"]}, ("residual",)),
    ),
    new(
        id="residual-of-block-input",
        name="residual-of-block-input",
        says="The block's input is added to what the feed-forward part gives, where the sum with attention's output is meant.",
        fix="add the residual sum that the feed-forward part's norm reads",
        at=("output",),
        change=taps({"output": lambda x, at: x - at.seen["residual"] + at.x}, ("residual",)),
    ),
    new(
        id="post-norms-missing",
        name="post-norms-missing",
        says="What attention and the feed-forward part give is added without its norm.",
        evidence="a kind of fault of engines that know one norm before each part only",
        fix="norm what each part gives with post_attention_norm and post_ffw_norm before it is added",
        right="refmodel.arch.gemma3:block",
        at=("post attention norm", "post ffn norm"),
        change=taps(
            {
                "post attention norm": lambda x, at: at.seen["mixed"].reshape(x.shape),
                "post ffn norm": lambda x, at: at.seen["ffn down"].reshape(x.shape),
            },
            ("mixed", "ffn down"),
            on_the_branches,
        ),
        tensors=("post_attention_norm.weight", "post_ffw_norm.weight"),
    ),
    new(
        id="input-norms-missing",
        name="input-norms-missing",
        says="Attention, the delta rule or the convolution reads the block's input without a norm.",
        fix="norm the block's input with attn_norm first",
        at=("input norm",),
        change=taps({"input norm": lambda x, at: at.x}),
        tensors=("attn_norm.weight",),
    ),
    new(
        id="ffn-norms-missing",
        name="ffn-norms-missing",
        says="The feed-forward part reads the residual sum without a norm.",
        fix="norm the residual sum with ffn_norm, or with post_attention_norm where a block has no other, first",
        at=("ffn norm",),
        change=taps({"ffn norm": lambda x, at: at.seen["residual"]}, ("residual",)),
        tensors=("ffn_norm.weight", "post_attention_norm.weight"),
    ),
    new(
        id="last-norm-missing",
        name="last-norm-missing",
        says="The head reads the last block's output without a norm.",
        fix="norm the last block's output before the head",
        right="refmodel.forward.call:norm",
        at=("last norm",),
        change=taps({"last norm": lambda x, at: at.x}),
        tensors=("output_norm.weight",),
    ),
    new(
        id="last-norm-weightless",
        name="last-norm-weightless",
        says="The norm after the last block is not multiplied by its weight.",
        fix="multiply by output_norm",
        right="refmodel.forward.call:norm",
        at=("last norm",),
        change=weightless,
        tensors=("output_norm.weight",),
    ),
    new(
        id="norm-of-centred",
        name="norm-of-centred",
        says="The mean is taken off before a norm, as LayerNorm does, where an RMS norm is meant.",
        evidence="a kind of fault: LayerNorm and RMSNorm differ by the mean",
        fix="divide by the root of the mean square, and take nothing off",
        right="refmodel.ops.norm:rms_norm",
        at=MEANS,
        change=operation(
            "rms_norm", lambda healthy, hp, x, eps: np.asarray(healthy(np.ascontiguousarray(x - x.mean(-1, keepdims=True)), eps))
        ),
    ),
    new(
        id="keys-and-values-exchanged",
        name="keys-and-values-exchanged",
        says="Attention reads the values as keys and the keys as values.",
        evidence="a kind of fault of a cache with two halves",
        fix="score with what attn_k gives, and mix what attn_v gives",
        right="refmodel.ops.attention:attention",
        at=("attention",),
        change=operation("attention", lambda healthy, hp, q, k, v, *given: healthy(q, v, k, *given)),
    ),
    new(
        id="ffn-skipped",
        name="ffn-skipped",
        says="The feed-forward part is left out.",
        fix="add what the feed-forward part gives",
        at=("output",),
        change=taps({"output": lambda x, at: at.seen["residual"]}, ("residual",)),
    ),
]
