"""The metadata of a model, read the same way for all architectures. Every number passes one gate, which states its range.

Source: llama_model_base::load_hparams in llama.cpp src/llama-model.cpp.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import MetadataError
from ..gguf.metadata import REQUIRED, Metadata
from ..ops.ieee import libm
from ..ops.rope import Rope
from .hparams import Hparams

MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS
MAX_COUNT = (1 << 31) - 1  # of what no tensor has to hold: tokens of a context or a window
CURE = "correct the key, or convert the model again"


@dataclass(frozen=True)
class Keys:
    """The keys of one architecture, without the `architecture.` before each name.

    md          all metadata of the file
    arch        the architecture's name
    largest     weights of the file's largest tensor: no width is more
    rope_freqs  the values of rope_freqs.weight, or none
    """

    md: Metadata
    arch: str
    largest: int
    rope_freqs: tuple[float, ...] = ()

    def full(self, name: str) -> str:
        """The key as the file has it."""
        return f"{self.arch}.{name}"

    def __contains__(self, name: str) -> bool:
        return self.full(name) in self.md

    def refused(self, name: str, found: Any, expected: str) -> MetadataError:
        """The MetadataError for a value: where it is, what was found, what was expected, what to do. The caller raises it."""
        return MetadataError(f"{self.md.path}: {self.full(name)} is {found}; {expected}: {CURE}")

    def count(self, name: str, default: Any = REQUIRED, least: int = 1, most: int = MAX_COUNT) -> int:
        """A whole number from `least` to `most`. MetadataError if it is out of this range, or is missing and has no default."""
        return self.checked(name, self.md.int(self.full(name), default), least, most)

    def width(self, name: str, per: int, default: Any = REQUIRED, least: int = 1) -> int:
        """A whole number with `per` weights for each unit in some tensor: at most what the file's largest tensor has room for.

        MetadataError as for `count`.
        """
        return self.count(name, default, least, self.room(per))

    def first(self, name: str, n_blocks: int, default: Any = REQUIRED, most: int = MAX_COUNT) -> int:
        """A whole number that a file may state once or block by block; llama.cpp reads block 0's. A list has n_blocks values.

        MetadataError for a list of another length, or a number outside 1 to `most`.
        """
        return self.checked(name, int(self.md.per_block(self.full(name), n_blocks, default)[0]), 1, most)

    def the_one(self, name: str, n_blocks: int, default: Any = REQUIRED, most: int = MAX_COUNT) -> int:
        """A whole number that a file may state once or block by block, with 0 for blocks that have nothing of it.

        MetadataError for a list of another length, two numbers besides 0, or a number outside 1 to `most`.
        """
        found = sorted({int(n) for n in self.md.per_block(self.full(name), n_blocks, default)} - {0})
        if len(found) > 1:
            raise self.refused(name, found, "expected one number for all blocks, or 0")
        return self.checked(name, found[0] if found else 0, 1, most)

    def real(self, name: str, default: Any, least: float, most: float, none: bool = False) -> float:
        """A finite number from `least` to `most`; with `none` also 0, which means that there is nothing.

        MetadataError for any other number, or if it is missing and has no default.
        """
        value = self.md.float(self.full(name), default)
        if not (least <= value <= most or (none and value == 0)):
            raise self.refused(name, value, f"expected {'0 for none, or ' * none}{least:g} to {most:g}")
        return value

    def only(self, name: str, expected: int) -> None:
        """Check a number that llama.cpp, and this program, accept only as `expected`; the key may be missing.

        MetadataError otherwise.
        """
        if (found := self.md.int(self.full(name), expected)) != expected:
            raise self.refused(name, found, f"this architecture is defined only for {expected}")

    def multiple(self, name: str, value: int, of_name: str, of: int) -> None:
        """Check that `value`, of key `name`, is a multiple of `of`, the value of key `of_name`. MetadataError otherwise."""
        if value % of:
            raise self.refused(name, value, f"expected a multiple of {self.full(of_name)}, which is {of}")

    def checked(self, name: str, value: int, least: int, most: int) -> int:
        """The number itself if it is from `least` to `most`; MetadataError otherwise."""
        if not least <= value <= most:
            raise self.refused(name, value, f"expected {least} to {most}")
        return value

    def room(self, per: int) -> int:
        """How many times the file's largest tensor holds `per` weights; at least 1."""
        return max(self.largest // per, 1)


@dataclass(frozen=True)
class Yarn:
    """The numbers of YaRN. llama.cpp reads keys for them in some architectures only; in the others they are these.

    fast, slow      turns within the context of the training, from which on a pair keeps its angle, and up to which it is scaled
    log_multiplier  mscale_all_dim: what is rotated grows by log_multiplier / 10 · ln(factor) less; 0 where nothing is taken off
    """

    fast: float = 32.0
    slow: float = 1.0
    log_multiplier: float = 0.0


def common(k: Keys, adjacent: bool = False, hybrid: bool = False, yarn: Yarn = Yarn(), some_heads: bool = False) -> Hparams:
    """The sizes that every architecture has. MetadataError names a key that is missing or out of its range.

    adjacent    whether the pairs that RoPE turns are neighbours, see ops.rope.Rope
    hybrid      whether there may be prediction blocks after the trunk, and heads that are rotated only in part
    yarn        its numbers, where a file may set them
    some_heads  whether some blocks may have no key/value heads
    """
    if not k.md.bool(k.full("attention.causal"), True):
        raise k.refused("attention.causal", False, "expected true; tokens that see later ones are not supported")
    n_all = k.count("block_count", most=MAX_BLOCKS)
    n_nextn = k.count("nextn_predict_layers", 0, 0, n_all - 1) if hybrid else 0
    n_embd = k.width("embedding_length", 1)
    n_head, n_head_kv = head_counts(k, n_all, n_embd, some_heads)
    head_dim, n_rot = head_widths(k, n_head, n_embd, hybrid)
    return Hparams(
        n_layer=n_all - n_nextn,
        n_nextn=n_nextn,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=k.real("attention.layer_norm_rms_epsilon", REQUIRED, 1e-20, 1),  # at 0 a row of zeros would be 0 / 0
        rope=rotation(k, n_rot, adjacent, yarn=yarn),
    )


def head_counts(k: Keys, n_all: int, n_embd: int, some: bool) -> tuple[int, int]:
    """(H, G): query heads, and key/value heads; with `some`, those of the blocks that have any.

    MetadataError if H is not a multiple of G, or a count is out of its range.
    """
    n_head = k.first("attention.head_count", n_all, most=k.room(n_embd))
    of_blocks = k.the_one if some else k.first
    n_head_kv = of_blocks("attention.head_count_kv", n_all, n_head, most=n_head)
    k.multiple("attention.head_count", n_head, "attention.head_count_kv", n_head_kv)
    return n_head, n_head_kv


def head_widths(k: Keys, n_head: int, n_embd: int, partly: bool) -> tuple[int, int]:
    """(D, n_rot): the width of a head, and how much of it is rotated; all of it if not `partly`.

    MetadataError for a width that is out of its range, or values of another width than keys.
    """
    head_dim = k.width("attention.key_length", n_head * n_embd, n_embd // n_head)
    k.only("attention.value_length", head_dim)
    if not partly:
        k.only("rope.dimension_count", head_dim)
    return head_dim, k.count("rope.dimension_count", head_dim, 2, head_dim)


def with_dense(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and n_ff, the inner width of the feed-forward part. MetadataError if it is missing or out of its range."""
    return replace(hp, n_ff=k.first("feed_forward_length", hp.n_all, most=k.room(hp.n_embd)))


def with_experts(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and those of experts: X in a block, U for each token, and n_ff, the inner width of one.

    MetadataError if a key is missing or out of its range, or experts are chosen in groups.
    """
    n_expert = k.width("expert_count", hp.n_embd)
    n_used = k.first("expert_used_count", hp.n_all, most=n_expert)
    k.only("expert_group_count", 0)
    most = k.room(hp.n_embd * n_expert)
    if "expert_feed_forward_length" in k:
        n_ff = k.first("expert_feed_forward_length", hp.n_all, most=most)
    else:
        each = k.first("feed_forward_length", hp.n_all) // n_used
        n_ff = k.checked("feed_forward_length / expert_used_count", each, 1, most)
    return replace(hp, n_expert=n_expert, n_used=n_used, n_ff=n_ff)


def with_shared_expert(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and n_ff_shared, the inner width of the expert that every token goes to.

    Without its key it is feed_forward_length. MetadataError if it is missing or out of its range.
    """
    name = "expert_shared_feed_forward_length"
    if name in k:
        return replace(hp, n_ff_shared=k.width(name, hp.n_embd))
    return replace(hp, n_ff_shared=with_dense(k, hp).n_ff)


def rotation(k: Keys, n_rot: int, adjacent: bool, base: str = "rope.freq_base", scaled: bool = True, yarn: Yarn = Yarn()) -> Rope:
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
    if min(sections) < 0 or not any(sections[:3]) or sum(sections) > hp.head_dim:
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
