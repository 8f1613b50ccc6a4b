"""Faults of the causal convolution of the delta rule, and of the short one between two gates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from .altered import At
from .changes import any_of, operation, taps, vectors
from .fault import SHORT, Change, Fault

RAW = ("conv raw", "short conv")
new = partial(
    Fault,
    family="conv",
    at=RAW,
    right="refmodel.ops.deltanet:causal_conv1d",
    tensors=("ssm_conv1d.weight", "shortconv.conv.weight"),
    keys=("ssm.conv_kernel", "shortconv.l_cache"),
)

GATES = partial(
    new,
    at=("short conv gates",),
    evidence="a kind of layout fault",
    fix="cut the product of shortconv.in_proj into the gate before, the gate after, and what is convolved",
    right="refmodel.arch.lfm2:short_convolution",
    tensors=("shortconv.in_proj.weight",),
)


def kernels(change: Any) -> Change:
    """Other weights [C, K] of both kinds of convolution."""
    return any_of(*(vectors(name, lambda w, hp: change(w)) for name in ("ssm_conv1d", "shortconv_conv")))


def as_transposed(w: F) -> F:
    """Weights [C, K] whose numbers are read as [K, C]."""
    return np.ascontiguousarray(w.reshape(w.shape[::-1]).T)


def each_for_itself(healthy: Any, hp: Hparams, x: F, w: F) -> F:
    """A prompt that is run as if each of its tokens were the first one decoded: it sees what was remembered, and itself."""
    T, K = len(x) - w.shape[1] + 1, w.shape[1]
    if T == 1:
        return np.asarray(healthy(x, w))
    return np.concatenate([healthy(np.concatenate([x[: K - 1], x[K - 1 + t :][:1]]), w) for t in range(T)])


def left_aligned(x: F, at: At) -> F:
    """What is kept [C, K-1] of a prompt of fewer than K-1 tokens: they are put first, and zeros follow."""
    T = len(at.c.pos)
    if at.c.pos[0] or x.shape[1] <= T:
        return x
    return np.concatenate([x[:, x.shape[1] - T :], np.zeros_like(x[:, T:])], axis=1)


def parts(first: int, second: int) -> Callable[[F, At], F]:
    """A product of three parts [T, 3E], the gate before, the gate after and x, with two of them exchanged."""

    def patch(x: F, at: At) -> F:
        three = np.split(x, 3, axis=1)
        three[first], three[second] = three[second], three[first]
        return np.concatenate(three, axis=1)

    return patch


def one_early(x: F, at: At) -> F:
    """What is kept [C, K-1] as it was one token before."""
    return at.seen["conv input"][:, -x.shape[1] - 1 : -1]


FAULTS: list[Fault] = [
    new(
        id="F41",
        name="conv-silu-missing",
        says="The convolution of queries, keys and values is not followed by SiLU.",
        evidence="llmman #16, vllm-gaudi #1484, mamba #816",
        fix="apply SiLU to what the convolution gives, before it is split into q, k and v",
        right="refmodel.arch.qwen35:convolution",
        at=("conv",),
        change=taps({"conv": lambda x, at: at.seen["conv raw"].reshape(x.shape)}, ("conv raw",)),
    ),
    new(
        id="F41",
        name="short-conv-silu-added",
        says="A short convolution between two gates is followed by SiLU, which only that of the delta rule has.",
        evidence="the class of F41 the other way",
        fix="multiply what the convolution gives by the second gate as it is",
        right="refmodel.arch.lfm2:short_convolution",
        at=("short conv",),
        change=taps({"short conv": lambda x, at: at.c.num.silu(x)}),
    ),
    new(
        id="F42",
        name="conv-reversed",
        says="The taps of the convolution are in reverse order: the first one multiplies the current token.",
        evidence="ik_llama.cpp #1654, mistral.rs #2049",
        fix="the last tap multiplies the current token",
        change=kernels(lambda w: np.ascontiguousarray(w[:, ::-1])),
    ),
    new(
        id="F42",
        name="conv-off-by-one",
        says="The window of the convolution is shifted by one token.",
        evidence="sglang #36864",
        fix="the window ends with the current token: K-1 inputs before it, and itself",
        change=kernels(lambda w: np.roll(w, 1, axis=1)),
    ),
    new(
        id="F42",
        name="conv-transposed",
        says="The weights of the convolution [channels, taps] are read as [taps, channels].",
        evidence="ik_llama.cpp #1654, mistral.rs #2049",
        fix="a channel's taps are next to each other in the file",
        change=kernels(as_transposed),
    ),
    new(
        id="F43",
        name="conv-short-prompt",
        says="A prompt shorter than what the convolution remembers is put at the wrong end of it.",
        evidence="hyprstream #1557, vllm-ascend #8561",
        fix="keep the last K-1 inputs, with zeros before the first token",
        right="refmodel.arch.qwen35:convolution",
        at=("conv kept",),
        change=taps({"conv kept": left_aligned}),
        when=SHORT,
    ),
    new(
        id="F44",
        name="conv-kept-one-early",
        says="What the convolution remembers ends with the token before the last.",
        evidence="vllm #53229, vllm-xpu-kernels #544",
        fix="keep the last K-1 inputs of the call, the newest among them",
        right="refmodel.arch.qwen35:convolution",
        at=("conv kept",),
        change=taps({"conv kept": one_early}, ("conv input",)),
    ),
    new(
        id="F50",
        name="prompt-run-as-decode",
        says="A prompt's tokens are convolved as single ones: each sees only what was remembered before all of them.",
        evidence="vLLM-2080Ti-Definitive #93, vllm #51562",
        fix="tell the first chunk of a prompt from decoding, whatever its slot is",
        change=operation("causal_conv1d", each_for_itself),
    ),
    GATES(
        id="short-conv-gates-exchanged",
        name="short-conv-gates-exchanged",
        says="The gates before and after a short convolution are exchanged.",
        change=taps({"short conv gates": parts(0, 1)}),
    ),
    GATES(
        id="short-conv-gate-as-input",
        name="short-conv-gate-as-input",
        says="The gate after a short convolution and the numbers that it convolves are exchanged.",
        change=taps({"short conv gates": parts(1, 2)}),
    ),
]
