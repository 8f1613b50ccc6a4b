"""Metadata that several architectures read the same way."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import MetadataError
from ..gguf.metadata import Metadata
from ..ops.rope import Rope

ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
DELTA = ("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha", "ssm_out")
FFN = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SHARED_EXPERT = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")


def require(md: Metadata, key: str, found: Any, expected: Any) -> None:
    """A value on which llama.cpp insists, and so do we."""
    if found != expected:
        raise MetadataError(f"{md.path}: {key} is {found}; this architecture is defined only for {expected}")


MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS


def counted(md: Metadata, key: str, value: int, least: int = 1, most: int = 1 << 31) -> int:
    """A size that the metadata states, between its bounds: whatever is made of it is made of a sane number."""
    if not least <= value <= most:
        raise MetadataError(f"{md.path}: {key} is {value}; expected {least} to {most}")
    return value


def head_counts(md: Metadata, arch: str, n_all: int) -> tuple[int, int]:
    """Query heads and key/value heads, those of block 0 as llama.cpp reads them; the former a multiple of the latter."""
    n_head = counted(md, f"{arch}.attention.head_count", md.per_block(f"{arch}.attention.head_count", n_all)[0])
    key = f"{arch}.attention.head_count_kv"
    n_head_kv = counted(md, key, md.per_block(key, n_all, n_head)[0], most=n_head)
    require(md, f"{arch}.attention.head_count modulo {key}", n_head % n_head_kv, 0)
    return n_head, n_head_kv


def expert_sizes(md: Metadata, arch: str, n_all: int) -> tuple[int, int, int]:
    """How many experts a block has, how many a token goes to, and the inner width of one."""
    n_expert = counted(md, f"{arch}.expert_count", md.int(f"{arch}.expert_count"))
    key = f"{arch}.expert_used_count"
    n_used = counted(md, key, md.per_block(key, n_all)[0], most=n_expert)
    require(md, f"{arch}.expert_group_count", md.int(f"{arch}.expert_group_count", 0), 0)
    key = f"{arch}.expert_feed_forward_length"
    n_ff = md.per_block(key, n_all)[0] if key in md else md.per_block(f"{arch}.feed_forward_length", n_all)[0] // n_used
    return n_expert, n_used, counted(md, key, n_ff)


def delta_sizes(md: Metadata, arch: str) -> tuple[int, int, int, int]:
    """Sizes of the gated delta rule: taps of the convolution, width of a head, key heads, value heads."""
    d_conv, d_state, n_k_head, n_v_head = (
        counted(md, f"{arch}.ssm.{key}", md.int(f"{arch}.ssm.{key}"), least)
        for key, least in (("conv_kernel", 2), ("state_size", 1), ("group_count", 1), ("time_step_rank", 1))
    )
    require(md, f"{arch}.ssm.inner_size", md.int(f"{arch}.ssm.inner_size"), d_state * n_v_head)
    require(md, f"{arch}.ssm.time_step_rank modulo {arch}.ssm.group_count", n_v_head % n_k_head, 0)
    return d_conv, d_state, n_k_head, n_v_head


def recurrent_blocks(md: Metadata, arch: str, n_all: int, n_nextn: int) -> tuple[bool, ...]:
    """Which of all blocks are recurrent: the file's own list, else every block but each interval-th; no prediction block is.

    Source: load_arch_hparams.
    """
    if f"{arch}.attention.recurrent_layers" in md:
        listed = md.per_block(f"{arch}.attention.recurrent_layers", n_all)
        return tuple(i < n_all - n_nextn and bool(kind) for i, kind in enumerate(listed))
    interval = md.int(f"{arch}.full_attention_interval", 4)
    require(md, f"{arch}.full_attention_interval > 0", interval > 0, True)
    return tuple(i < n_all - n_nextn and (i + 1) % interval != 0 for i in range(n_all))


def rotation(md: Metadata, arch: str, n_rot: int, adjacent: bool, factors: tuple[float, ...]) -> Rope:
    """The rotary embedding of an architecture with no scaling, a linear one, or YaRN; `factors` is empty for all ones.

    Source: llama_model_base::load_hparams. Longrope is refused by name.
    """
    how = md.str(f"{arch}.rope.scaling.type", "linear")
    if how not in ("none", "linear", "yarn"):
        raise MetadataError(f"{md.path}: {arch}.rope.scaling.type is {how!r}; known are 'none', 'linear' and 'yarn'")
    if n_rot <= 0 or n_rot % 2:
        raise MetadataError(f"{md.path}: {arch}.rope.dimension_count is {n_rot}; expected a positive even number")
    if factors and len(factors) != n_rot // 2:
        raise MetadataError(f"{md.path}: rope_freqs.weight has {len(factors)} values; expected {n_rot // 2}, one a pair")
    base = md.float(f"{arch}.rope.freq_base", 10000.0)
    if not (math.isfinite(base) and base > 0 and all(f > 0 for f in factors)):
        raise MetadataError(f"{md.path}: {arch}.rope.freq_base is {base} and the divisors {factors}; expected positive numbers")
    factor = md.float(f"{arch}.rope.scaling.factor", md.float(f"{arch}.rope.scale_linear", 0.0))
    rope = Rope(
        base=base,
        n_rot=n_rot,
        adjacent=adjacent,
        scale=1 / factor if factor and how != "none" else 1.0,
        factors=factors or (1.0,) * (n_rot // 2),
        magnitude=md.float(f"{arch}.rope.scaling.attn_factor", 1.0),
    )
    context = md.int(f"{arch}.rope.scaling.original_context_length", md.int(f"{arch}.context_length"))
    return yarn(rope, context) if how == "yarn" else rope


def yarn(rope: Rope, context: int) -> Rope:
    """YaRN: pairs that turn 32 times and more within the context of the training keep their angle, those that turn once or less
    are scaled, and those between them a part; what is rotated grows with the logarithm of the factor.

    Source: arXiv:2309.00071; ggml_rope_yarn_corr_dims and rope_yarn in float32, llama_context for the magnitude.
    """
    n, f32 = rope.n_rot, np.float32
    kept, scaled = (n * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(rope.base)) for turns in (32, 1))
    low, high = f32(max(0, math.floor(kept))), f32(min(n - 1, math.ceil(scaled)))
    ramp = f32(1) - np.clip((np.arange(n // 2, dtype=f32) - low) / max(f32(0.001), high - low), 0, 1)
    factor = f32(1) / f32(rope.scale)
    growth = f32(1) + f32(0.1) * f32(math.log(factor))
    context_factor = (growth if factor > 1 else f32(1)) * (f32(1) / growth) * f32(rope.magnitude)
    return replace(rope, unscaled=tuple(map(float, ramp)), magnitude=float(context_factor * growth))


def turned_by_text(sections: tuple[int, ...], pairs: int) -> tuple[float, ...]:
    """Divisors of the angles under IMROPE: text turns the pairs of its time, height and width sections alike, the others never.

    sections  how many pairs read the t, h, w and e position of a token, dealt out in turns t, h, w; text has e = 0.
    Source: ggml_mrope_cache_init with is_imrope.
    """
    t, h, w, _ = sections
    limit = {0: 3 * t, 1: 3 * h, 2: 3 * w}
    sectors = [i % max(sum(sections), 1) for i in range(pairs)]
    return tuple(1.0 if sector < limit[sector % 3] else math.inf for sector in sectors)
