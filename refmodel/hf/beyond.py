"""What a folder says and no key of a GGUF can: it is computed as transformers computes it, and remarked.

Each function gets the settings and the sizes that the keys made, and returns fields of Hparams with their values, and remarks.
"""

from collections.abc import Callable
from typing import Any

from ..arch import Hparams
from .by_place.llamacpp import conversion
from .by_place.rules import SLIDING
from .settings import Settings

Found = tuple[dict[str, Any], list[str]]
Beyond = Callable[[Settings, Hparams], Found]


def nothing(s: Settings, hp: Hparams) -> Found:
    """For classes whose configuration a GGUF can express."""
    return {}, []


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


def gemma(s: Settings, hp: Hparams) -> Found:
    """Gemma 3: the scale of its queries, and the kinds that llama.cpp's converter drops. MetadataError for a scale of 0."""
    remarks, fields = [], dict[str, Any]()
    stated = s.needed("query_pre_attn_scalar")
    if not stated:
        raise s.refused("query_pre_attn_scalar", "at least 1")
    if stated != hp.query_dim:
        fields["query_dim"] = stated
        remarks.append(
            f"query_pre_attn_scalar is {stated}; no key of this architecture says so, and llama.cpp "
            f"scales queries by {hp.query_dim}^-0.5"
        )
    kept = conversion(s.model_type, s.kinds(), (s.n_layer, s.n_layer), (hp.query_dim, hp.query_dim))
    if kept and not kept[0]:
        remarks.append(kept[1])
    return fields, remarks
