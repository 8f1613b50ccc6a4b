"""The rotary embedding that a model's metadata asks for: its base, its pairs, and how angles are scaled in long contexts.

Source: llama_model_base::load_hparams in llama.cpp src/llama-model.cpp.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MetadataError
from ..ops.ieee import libm
from ..ops.rope import Rope
from .hparams import Hparams
from .keys import Keys


@dataclass(frozen=True)
class Yarn:
    """The numbers of YaRN. llama.cpp reads keys for them in some architectures only; in the others they are these.

    fast, slow      turns within the context of the training, from which on a pair keeps its angle, and up to which it is scaled
    log_multiplier  mscale_all_dim: what is rotated grows by log_multiplier / 10 · ln(factor) less; 0 where nothing is taken off
    """

    fast: float = 32.0
    slow: float = 1.0
    log_multiplier: float = 0.0


USUAL = Yarn()


def rotation(k: Keys, n_rot: int, adjacent: bool, base: str = "rope.freq_base", scaled: bool = True, yarn: Yarn = USUAL) -> Rope:
    """The rotary embedding of n_rot numbers of a head, with no scaling, linear scaling, or YaRN.

    n_rot      how many numbers of a head are rotated, even
    adjacent   see ops.rope.Rope
    base       the key of the base; sliding blocks have their own
    scaled     whether angles are scaled; in sliding blocks they are not
    yarn       its numbers

    MetadataError for another scaling, such as longrope, for an odd n_rot, or for a value out of its range.
    """
    how = k.md.str(k.full("rope.scaling.type"), "linear")
    if how not in ("none", "linear", "yarn"):
        raise k.refused("rope.scaling.type", repr(how), "expected 'none', 'linear' or 'yarn'")
    if n_rot % 2:
        raise k.refused("rope.dimension_count", n_rot, "expected an even number")
    theta = k.real(base, 10000.0, 1e-6 if how != "yarn" else 1.001, 1e30)
    old = k.real("rope.scale_linear", 0.0, 1e-3, 1e6, none=True)  # the key of old files
    factor = k.real("rope.scaling.factor", old, 1e-3, 1e6, none=True) or 1.0
    magnitude = k.real("rope.scaling.attn_factor", 1.0, 1e-6, 1e6)
    factor = 1.0 if how == "none" else factor
    rope = Rope(theta, n_rot, adjacent, 1 / factor if scaled else 1.0, (1.0,) * (n_rot // 2), magnitude=magnitude)
    context = k.count("context_length")
    trained = k.count("rope.scaling.original_context_length", 0, 0) or context
    return with_yarn(rope, factor, trained, yarn) if how == "yarn" else rope


def with_yarn(rope: Rope, factor: float, context: int, numbers: Yarn) -> Rope:
    """YaRN: pairs that turn 32 times and more within the context of the training keep their angle, those that turn once or less
    are scaled, and those between them a part; what is rotated grows with the logarithm of the factor.

    factor   that of the whole context. A sliding block has rope.scale 1, and then what is rotated does not grow
    context  tokens of the training
    numbers  other numbers of turns than 32 and 1, and how much of the growth is taken off

    Source: arXiv:2309.00071; ggml_rope_yarn_corr_dims and rope_yarn in float32, llama_context for the magnitude.
    """
    n, f32, log = rope.n_rot, np.float32, libm("logf")
    turns = (f32(context) / (f32(beta) * f32(2) * f32(math.pi)) for beta in (numbers.fast, numbers.slow))
    kept, scaled = (f32(n) * log(turn) / (f32(2) * log(f32(rope.base))) for turn in turns)
    low, high = f32(max(0, np.floor(kept))), f32(min(n - 1, np.ceil(scaled)))
    ramp = f32(1) - np.clip((np.arange(n // 2, dtype=f32) - low) / max(f32(0.001), high - low), 0, 1)
    whole, own = (f32(1) + f32(0.1) * log(f32(1) / f32(scale)) for scale in (1 / factor, rope.scale))
    less = f32(1) + f32(0.1) * f32(numbers.log_multiplier) * log(f32(1) / f32(1 / factor))
    of_context = (whole / less if factor > 1 else f32(1)) * (f32(1) / whole) * f32(rope.magnitude)
    return replace(rope, unscaled=tuple(map(float, ramp)), magnitude=float(of_context * own))


def turned_by_text(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes with IMROPE's divisors: text turns the pairs of its time, height and width sections alike, the others never.

    rope.dimension_sections says how many pairs read the t, h, w and e position of a token, dealt out in turns t, h, w; e is 0.
    MetadataError if these are not four numbers, or no pair is turned.
    Source: ggml_mrope_cache_init with is_imrope, and ggml_compute_forward_rope, which insists on one of the first three.
    """
    name = "rope.dimension_sections"
    sections = k.md.ints(k.full(name), 4)
    if not any(sections[:3]) or sum(sections) > hp.head_dim:
        raise k.refused(name, list(sections), f"expected numbers of pairs, at most {hp.head_dim} in all, not only the last")
    limit = {axis: 3 * pairs for axis, pairs in enumerate(sections[:3])}
    sectors = [i % sum(sections) for i in range(hp.rope.n_rot // 2)]
    factors = tuple(1.0 if sector < limit[sector % 3] else math.inf for sector in sectors)
    return replace(hp, rope=replace(hp.rope, factors=factors))


def divided(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes with the divisors of the angles in the tensor rope_freqs.weight [n_rot/2], if the file has it.

    MetadataError if there is not one positive divisor for each pair.
    """
    if not k.rope_freqs:
        return hp
    n = hp.rope.n_rot // 2
    if len(k.rope_freqs) != n or not all(divisor > 0 for divisor in k.rope_freqs):
        raise MetadataError(
            f"{k.md.path}: rope_freqs.weight has {len(k.rope_freqs)} values, the least is {min(k.rope_freqs)}; "
            f"expected {n} positive numbers, one for each pair: convert the model again"
        )
    return replace(hp, rope=replace(hp.rope, factors=k.rope_freqs))
