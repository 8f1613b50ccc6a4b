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
    factor = md.float(f"{arch}.rope.scaling.factor", md.float(f"{arch}.rope.scale_linear", 0.0))
    return Rope(
        base=md.float(f"{arch}.rope.freq_base", 10000.0),
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
