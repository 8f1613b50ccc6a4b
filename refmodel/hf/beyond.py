"""What a folder says and no key of a GGUF can: it is computed as transformers computes it, and remarked.

Each function gets the settings and the sizes that the keys made, and returns fields of Hparams with their values, and remarks.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..arch import Hparams
from .by_place.rules import SLIDING
from .ropes import rope_divisors, unusual_yarn, yarn_by_its_numbers
from .settings import Settings

Found = tuple[dict[str, Any], list[str]]
Beyond = Callable[[Settings, Hparams], Found]


def nothing(s: Settings, hp: Hparams) -> Found:
    """For classes whose configuration a GGUF can express."""
    return {}, []


def rotation(s: Settings, hp: Hparams, divisors_kept: bool) -> Found:
    """RoPE, where a file has neither keys nor a tensor for its numbers. MetadataError for one that is out of its range.

    divisors_kept  whether files of the architecture have a tensor with the divisors of `llama3` RoPE
    """
    if odd := unusual_yarn(s):
        words = "; ".join(f"{key} of YaRN is {found:g}, and llama.cpp takes {usual:g}" for key, (found, usual) in odd.items())
        return {"rope": yarn_by_its_numbers(s, hp.rope)}, [f"no key of this architecture says it: {words}"]
    divisors = None if divisors_kept else rope_divisors(s, hp.rope.n_rot)
    if divisors is None:
        return {}, []
    factors = tuple(a * b for a, b in zip(hp.rope.factors, divisors, strict=True))
    remark = "rope_type is llama3; no tensor of this architecture holds its divisors, and llama.cpp rotates by undivided angles"
    return {"rope": replace(hp.rope, factors=factors)}, [remark]


def windowed(s: Settings, slides: tuple[bool, ...]) -> Found:
    """Blocks that see a window, in an architecture of llama.cpp that has none. MetadataError for a window that is no number."""
    if not any(slides):
        return {}, []
    window = s.needed("sliding_window")
    words = (
        f"sliding_window is {window} in {sum(slides)} of {len(slides)} layers; no key of this architecture says so, and llama.cpp"
    )
    return {"window": window, "sliding": slides}, [f"{words} lets every token see all before it"]


def every_layer(s: Settings, hp: Hparams) -> Found:
    """Mistral: every layer slides if there is a window."""
    return windowed(s, (s.whole("sliding_window") is not None,) * s.n_layer)


def every_layer_if_asked(s: Settings, hp: Hparams) -> Found:
    """Qwen 3 with experts: every layer slides if use_sliding_window says so."""
    asked = bool(s.values.get("use_sliding_window")) and s.whole("sliding_window") is not None
    return windowed(s, (asked,) * s.n_layer)


def listed_layers(s: Settings, hp: Hparams) -> Found:
    """Qwen 2 and 3: the layers that slide are listed, or follow from max_window_layers."""
    return windowed(s, tuple(kind == SLIDING for kind in s.kinds()))


UNIT_EPS = 1e-6  # of l2norm in transformers' classes


def delta(s: Settings, hp: Hparams) -> Found:
    """The gated delta rule: its queries and keys are normed with a number of their own."""
    if math.isclose(hp.eps, UNIT_EPS, rel_tol=1e-6):  # the file has a float32 of it
        return {}, []
    remark = (
        f"rms_norm_eps is {hp.eps:.3g}; transformers norms queries and keys of the delta rule with {UNIT_EPS:g} whatever it is, "
        "llama.cpp with this one"
    )
    return {"eps_unit": UNIT_EPS}, [remark]


def gemma(s: Settings, hp: Hparams) -> Found:
    """Gemma 3: the scale of its queries. MetadataError for a scale of 0."""
    stated = s.needed("query_pre_attn_scalar")
    if not stated:
        raise s.refused("query_pre_attn_scalar", "at least 1")
    if stated == hp.query_dim:
        return {}, []
    words = f"query_pre_attn_scalar is {stated}; no key of this architecture says so"
    return {"query_dim": stated}, [f"{words}, and llama.cpp scales queries by {hp.query_dim}^-0.5"]


def gemma_with_vision(s: Settings, hp: Hparams) -> Found:
    """The same in transformers' class with an image part, which does not cap its logits."""
    fields, remarks = gemma(s, hp)
    if not hp.softcap:
        return fields, remarks
    remark = f"final_logit_softcapping is {hp.softcap:g}; this class does not read it, and llama.cpp caps the logits"
    return fields | {"softcap": 0.0}, [*remarks, remark]
