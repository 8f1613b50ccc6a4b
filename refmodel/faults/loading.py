"""Faults of loading: metadata that are read wrongly, tensors that are missing or turned, blocks that are counted wrongly."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arch.kinds import interval_without_list
from ..arrays import F, Matrix
from ..quants import dequantize
from .altered import At
from .changes import hparams, operation, taps
from .fault import Engine, Fault

new = partial(Fault, family="loading", right="refmodel.model.tensors:Tensors")


def without_last(x: F, at: At) -> F:
    """The output of a block; of the last one its input."""
    return at.x if at.w.index == at.c.hp.n_layer - 1 else x


def by_interval(e: Engine) -> Engine | None:
    """The kinds of blocks that the interval gives where a file lists them; only kinds that have the same tensors."""
    how, hp = e.model.arch.FACTS.kinds, e.model.hp
    if not how or how.both or not hp.window:
        return None
    interval = interval_without_list(e.model.file.metadata, e.model.architecture, how)
    sliding = tuple((i + 1) % interval != 0 for i in range(hp.n_layer))
    return hparams(lambda hp: replace(hp, sliding=sliding))(e)


def tied(e: Engine) -> Engine | None:
    """The embedding is used as the head, though the file has one."""
    own = e.model.weights.get("output.weight")
    if own is None:
        return None
    changed = e.model.tensors.changed(weights={"output.weight": e.model.weights["token_embd.weight"]})
    return replace(e, model=e.model.with_tensors(changed))


def turned(healthy: Any, hp: Hparams, w: Matrix, x: F) -> F:
    """The product with attn_output whose numbers [O, I] are read as [I, O]."""
    if not w.name.endswith("attn_output.weight"):
        return np.asarray(healthy(w, x))
    numbers = dequantize(w.type, w.rows).reshape(w.shape[::-1]).astype(x.dtype)
    return np.asarray(x @ numbers)


FAULTS: list[Fault] = [
    new(
        id="F53",
        name="last-block-skipped",
        says="The last block is not run: a prediction block was taken off the count of a file that counts none.",
        evidence="ollama #16282, mobius #522, lucebox #610, llama.cpp #25024",
        fix="blocks of the trunk are block_count less nextn_predict_layers, and only where the file has these",
        right="refmodel.arch.metadata:common",
        at=("output",),
        change=taps({"output": without_last}),
        keys=("block_count", "nextn_predict_layers"),
    ),
    new(
        id="F54",
        name="kinds-from-interval",
        says="Which blocks have a sliding window is taken from a fixed interval, though the file says it.",
        evidence="llama.cpp #28207, llama.cpp #28208",
        fix="read attention.sliding_window_pattern, which may be a list",
        right="refmodel.arch.gemma3:sliding_blocks",
        at=("q rotated", "k rotated", "attention"),
        change=by_interval,
        keys=("attention.sliding_window_pattern",),
    ),
    new(
        id="F60",
        name="head-tied-wrongly",
        says="The embedding is used as the head, though the file has a head of its own.",
        evidence="pegainfer #544, 1bit-MONSTER #319, sglang #21347, mllm #657",
        fix="use output.weight where the file has it",
        right="refmodel.model.tensors:output",
        at=("logits",),
        change=tied,
        tensors=("output.weight", "token_embd.weight"),
    ),
    new(
        id="F60",
        name="head-not-loaded",
        says="The head is zero: all tokens are equally likely, and the loss is ln V.",
        evidence="imp #1282",
        fix="load output.weight, or the embedding in its place",
        right="refmodel.model.tensors:output",
        at=("logits",),
        change=taps({"logits": lambda x, at: np.zeros_like(x)}),
        tensors=("output.weight",),
    ),
    new(
        id="F61",
        name="embedding-not-loaded",
        says="The embedding was never filled: every token is read as zeros.",
        evidence="sglang #38363",
        fix="load token_embd.weight",
        right="refmodel.ops.linear:embed",
        at=("embedding",),
        change=taps({"embedding": lambda x, at: np.zeros_like(x)}),
        tensors=("token_embd.weight",),
    ),
    new(
        id="F63",
        name="matrix-turned",
        says="attn_output was transposed twice by a converter: its numbers are in the order of the other shape.",
        evidence="aprender #278, ik_llama.cpp #1654",
        fix="write a matrix row by row, in the shape that the file says",
        right="refmodel.ops.linear:linear",
        at=("mixed attention",),
        change=operation("linear", turned),
        tensors=("attn_output.weight",),
    ),
    new(
        id="embedding-unscaled",
        name="embedding-unscaled",
        says="Embedded tokens are not multiplied by √E.",
        evidence="a kind of fault of models that scale their embedding",
        fix="multiply embedded tokens by the square root of embedding_length",
        right="refmodel.arch.gemma3:embed",
        at=("embedding",),
        change=taps({"embedding": lambda x, at: x / math.sqrt(x.shape[-1])}, (), lambda model: model.arch.FACTS.embedding_scaled),
        keys=("embedding_length",),
    ),
    new(
        id="embedding-scaled",
        name="embedding-scaled",
        says="Embedded tokens are multiplied by √E, as Gemma's are.",
        evidence="a kind of fault of engines that share one forward pass among families",
        fix="multiply embedded tokens by the square root of embedding_length in models of Gemma only",
        right="refmodel.ops.linear:embed",
        at=("embedding",),
        change=taps(
            {"embedding": lambda x, at: x * math.sqrt(x.shape[-1])}, (), lambda model: not model.arch.FACTS.embedding_scaled
        ),
        keys=("embedding_length",),
    ),
]
