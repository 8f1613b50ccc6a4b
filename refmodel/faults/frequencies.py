"""Faults of the frequencies of RoPE: the base, and the factors and scaling that a file may have."""

from dataclasses import replace
from functools import partial

import numpy as np

from ..arch import Hparams
from ..ops.rope import Rope
from .changes import hparams, rotations
from .fault import Fault

new = partial(
    Fault,
    family="frequencies",
    at=("q rotated", "k rotated"),
    right="refmodel.arch.rotation:rotation",
    tensors=("attn_q.weight", "attn_k.weight"),
)


def with_base(base: float, hp: Hparams) -> Hparams:
    """Another base, in blocks without a sliding window."""
    return replace(hp, rope=replace(hp.rope, base=base))


def unscaled(rope: Rope, hp: Hparams) -> Rope:
    """A rotation by the base alone; pairs that text does not turn stay so."""
    return replace(rope, scale=1.0, factors=tuple(f if np.isinf(f) else 1.0 for f in rope.factors), unscaled=(), magnitude=1.0)


FAULTS: list[Fault] = [
    new(
        id="F06",
        name="rope-base-default",
        says="RoPE uses the default base of 10000 instead of the model's own.",
        evidence="koboldcpp #487, sglang #19585",
        fix="read rope.freq_base",
        right="refmodel.arch.rotation:rotation",
        change=rotations(lambda rope, hp: replace(rope, base=10000.0)),
        keys=("rope.freq_base",),
    ),
    *(
        new(
            id="F06",
            name=f"rope-base-{words}",
            says=f"RoPE uses the base {base:.0f} of other models.",
            evidence="the class of koboldcpp #487 and sglang #19585",
            fix="read rope.freq_base",
            right="refmodel.arch.rotation:rotation",
            change=hparams(partial(with_base, base)),
            keys=("rope.freq_base",),
        )
        for words, base in (("500k", 5e5), ("1m", 1e6), ("10m", 1e7))
    ),
    new(
        id="F06",
        name="rope-base-default-of-full",
        says="Blocks without a sliding window are rotated with the default base of 10000, where they have a base of their own.",
        evidence="the class of koboldcpp #487, in models with two bases",
        fix="read rope.freq_base for these blocks",
        right="refmodel.arch.gemma3:attention",
        change=hparams(lambda hp: with_base(10000.0, hp) if hp.rope_sliding else hp),
        keys=("rope.freq_base",),
    ),
    new(
        id="rope-base-of-full",
        name="rope-base-of-full",
        says="Blocks without a sliding window are rotated as those with one, though they have a base of their own.",
        evidence="gemma.cpp #986",
        fix="use rope.freq_base, with its scaling, in blocks that attend to all tokens",
        right="refmodel.arch.gemma3:attention",
        change=hparams(lambda hp: replace(hp, rope=hp.rope_sliding or hp.rope)),
        keys=("rope.freq_base",),
    ),
    new(
        id="rope-base-of-sliding",
        name="rope-base-of-sliding",
        says="Blocks with a sliding window are rotated as those without, though they have a base of their own.",
        evidence="a kind of loading fault of models with two bases",
        fix="use rope.freq_base_swa, and no scaling, in blocks with a sliding window",
        right="refmodel.arch.gemma3:attention",
        change=hparams(lambda hp: replace(hp, rope_sliding=hp.rope_sliding and hp.rope)),
        keys=("rope.freq_base_swa",),
    ),
    new(
        id="rope-factors-ignored",
        name="rope-factors-ignored",
        says="The frequencies of RoPE are not divided by the factors of the file, nor scaled as it says.",
        evidence="tiny-vllm #1, mlxcel #1355, ANEForge #58",
        fix="read rope_freqs.weight and rope.scaling",
        right="refmodel.ops.rope:speeds",
        change=rotations(unscaled),
        tensors=("rope_freqs.weight",),
        keys=("rope.scaling.type", "rope.scaling.factor"),
    ),
]
