"""Metadata that several architectures read the same way."""

import math
from typing import Any

from ..errors import MetadataError
from ..gguf.metadata import Metadata
from ..ops.rope import Rope


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


def linear_rope(md: Metadata, arch: str, n_rot: int, adjacent: bool, factors: tuple[float, ...]) -> Rope:
    """The rotary embedding of an architecture with no scaling or a linear one; `factors` is empty for all ones.

    Source: llama_model_base::load_hparams. YaRN and longrope are refused by name.
    """
    how = md.str(f"{arch}.rope.scaling.type", "linear")
    if how not in ("none", "linear"):
        raise MetadataError(f"{md.path}: {arch}.rope.scaling.type is {how!r}; known are 'none' and 'linear'")
    if n_rot <= 0 or n_rot % 2:
        raise MetadataError(f"{md.path}: {arch}.rope.dimension_count is {n_rot}; expected a positive even number")
    if factors and len(factors) != n_rot // 2:
        raise MetadataError(f"{md.path}: rope_freqs.weight has {len(factors)} values; expected {n_rot // 2}, one a pair")
    base = md.float(f"{arch}.rope.freq_base", 10000.0)
    if not (math.isfinite(base) and base > 0 and all(f > 0 for f in factors)):
        raise MetadataError(f"{md.path}: {arch}.rope.freq_base is {base} and the divisors {factors}; expected positive numbers")
    factor = md.float(f"{arch}.rope.scaling.factor", md.float(f"{arch}.rope.scale_linear", 0.0))
    return Rope(
        base=base,
        n_rot=n_rot,
        adjacent=adjacent,
        scale=1 / factor if factor and how == "linear" else 1.0,
        factors=factors or (1.0,) * (n_rot // 2),
    )


def turned_by_text(sections: tuple[int, ...], pairs: int) -> tuple[float, ...]:
    """Divisors of the angles under IMROPE: text turns the pairs of its time, height and width sections alike, the others never.

    sections  how many pairs read the t, h, w and e position of a token, dealt out in turns t, h, w; text has e = 0.
    Source: ggml_mrope_cache_init with is_imrope.
    """
    t, h, w, _ = sections
    limit = {0: 3 * t, 1: 3 * h, 2: 3 * w}
    sectors = [i % max(sum(sections), 1) for i in range(pairs)]
    return tuple(1.0 if sector < limit[sector % 3] else math.inf for sector in sectors)
