"""A config.json as the metadata of a GGUF: the keys that llama.cpp's converter writes.

Each function says a part of it; classes.py lists which parts a class has. Source: llama.cpp conversion/base.py,
TextModel.set_gguf_parameters, and the same function of conversion/llama.py, qwen.py and gemma.py.
"""

from typing import Any

from gguf import GGUFValueType as T

from ..gguf.metadata import Field
from ..gguf.writer import field
from .by_place.folders import FACTS
from .by_place.mixers import mixers
from .by_place.rules import FULL, LINEAR, SLIDING, SPARSE
from .ropes import rope_of, rotation
from .settings import Says, Settings, finite, head_dim


def common(s: Settings) -> dict[str, Any]:
    """The sizes that every model has."""
    return {
        "block_count": s.n_layer + s.n_nextn,
        "context_length": s.whole("max_position_embeddings"),
        "embedding_length": s.needed("hidden_size"),
        "feed_forward_length": s.whole("intermediate_size"),
        "attention.head_count": s.needed("num_attention_heads"),
        "attention.head_count_kv": s.whole("num_key_value_heads"),
        "attention.key_length": s.whole("head_dim"),
        "attention.value_length": s.whole("head_dim"),
        "attention.layer_norm_rms_epsilon": s.real("rms_norm_eps"),
        **rotation(s),
    }


def derived_heads(s: Settings) -> dict[str, Any]:
    """The width of a head where the class works it out, and what it rotates of it: all. The vocabulary, too."""
    D, V = head_dim(s), s.whole("vocab_size")
    kv = s.whole("num_key_value_heads") or s.needed("num_attention_heads")
    lengths = {"attention.key_length": D, "attention.value_length": D}
    return {**lengths, "attention.head_count_kv": kv, "vocab_size": V, "rope.dimension_count": D}


def experts(s: Settings) -> dict[str, Any]:
    """The sizes of a mixture of experts. MetadataError for layers without experts, and for shares that are not normed."""
    fact = next((fact for fact in FACTS.get(s.model_type, ()) if fact.name == "mlp_only_layers"), None)
    if fact and any(kind != SPARSE for kind in fact.read(s.values, s.n_layer)):
        raise s.refused("mlp_only_layers", "experts in every layer, as this architecture has them")
    return {
        "expert_count": s.needed("num_local_experts", "num_experts"),
        "expert_used_count": s.needed("num_experts_per_tok"),
        "expert_feed_forward_length": s.whole("moe_intermediate_size"),
    }


def normed_shares(s: Settings) -> dict[str, Any]:
    """No key; MetadataError unless the shares of a token's experts are divided by their sum, as llama.cpp does."""
    if s.values.get("norm_topk_prob") is not True:
        raise s.refused("norm_topk_prob", "true, as this architecture is computed")
    return {}


def shared_expert(s: Settings) -> dict[str, Any]:
    """The width of the expert that every token goes to."""
    return {"expert_shared_feed_forward_length": s.whole("shared_expert_intermediate_size")}


def delta_rule(s: Settings) -> dict[str, Any]:
    """The sizes of the gated delta rule, the kinds of blocks, and the part of a head that is rotated."""
    factor = finite(rope_of(s).get("partial_rotary_factor", 0.25), s.refused("partial_rotary_factor", "a finite number"))
    values = s.needed("linear_num_value_heads")
    return {
        "ssm.conv_kernel": s.needed("linear_conv_kernel_dim"),
        "ssm.state_size": s.needed("linear_key_head_dim"),
        "ssm.group_count": s.needed("linear_num_key_heads"),
        "ssm.time_step_rank": values,
        "ssm.inner_size": values * s.needed("linear_value_head_dim"),
        "attention.recurrent_layers": [*(kind == LINEAR for kind in s.kinds()), *[False] * s.n_nextn],
        "full_attention_interval": s.whole("full_attention_interval") or 4,
        "rope.dimension_count": int(head_dim(s) * factor),
        "nextn_predict_layers": s.n_nextn or None,
    }


def short_convolution(s: Settings) -> dict[str, Any]:
    """LFM2: the key/value heads of each layer, 0 for a convolution; its taps; the width of the feed-forward part; its norms."""
    kinds, D = mixers(s.model_type, s.values, s.n_layer), head_dim(s)
    if not {*kinds} <= {FULL, "conv"}:
        raise s.refused("layer_types", f"{FULL} and conv")
    heads = s.whole("num_key_value_heads") or s.needed("num_attention_heads")
    return {
        "attention.head_count_kv": [heads if kind == FULL else 0 for kind in kinds],
        "attention.key_length": D,
        "attention.value_length": D,
        "attention.layer_norm_rms_epsilon": s.real("norm_eps"),
        "feed_forward_length": adjusted_width(s),
        "shortconv.l_cache": s.needed("conv_L_cache"),
        "vocab_size": s.whole("vocab_size"),
    }


def adjusted_width(s: Settings) -> int:
    """LFM2: the inner width of the feed-forward part. Two thirds of what is stated, times a factor, up to a multiple, if asked."""
    width = s.needed("block_ff_dim", "intermediate_size")
    if not s.values.get("block_auto_adjust_ff_dim"):
        return width
    factor, step = s.real("block_ffn_dim_multiplier"), s.needed("block_multiple_of")
    width = int((1.0 if factor is None else factor) * int(2 * width / 3))
    return -(-width // max(step, 1)) * step


def windows(s: Settings) -> dict[str, Any]:
    """Gemma 3: its window, the kinds of its layers where they are not those of their places, soft-capped logits."""
    kinds, window = s.kinds(), s.whole("sliding_window")
    by_place = ["sliding_attention" if (i + 1) % 6 else FULL for i in range(s.n_layer)]
    slides = [kind == SLIDING for kind in kinds]
    return {
        "attention.sliding_window": window,
        "attention.sliding_window_pattern": slides if kinds != by_place else None,
        "final_logit_softcapping": s.real("final_logit_softcapping") or None,
    }


def as_field(value: Any) -> Field:
    """A value as a GGUF has it."""
    if isinstance(value, list):
        kind = T.BOOL if all(isinstance(v, bool) for v in value) else T.INT32
        return field(T.ARRAY, value, kind)
    kinds = {int: T.UINT32, float: T.FLOAT32, str: T.STRING, bool: T.BOOL}
    return field(kinds[type(value)], value)


def fields_of(s: Settings, arch: str, says: tuple[Says, ...]) -> dict[str, Field]:
    """The metadata of a folder: every key below `arch` that its parts say, in order; None is left out."""
    found: dict[str, Any] = {}
    for part in (common, *says):
        found |= part(s)
    general = {"general.architecture": arch, "general.type": "model", "general.name": s.path.parent.resolve().name}
    return {
        **{key: as_field(value) for key, value in general.items()},
        **{f"{arch}.{key}": as_field(value) for key, value in found.items() if value is not None},
    }
