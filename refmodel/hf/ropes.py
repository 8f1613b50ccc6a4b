"""RoPE in a config.json, in either spelling, as the keys and the tensor of a GGUF.

Source: llama.cpp conversion/base.py, TextModel.set_gguf_parameters, conversion/llama.py, generate_extra_tensors; transformers'
modeling_rope_utils.py.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import MetadataError
from .settings import CURE, Settings, finite, head_dim
from .spelling import rope

NO_SCALING = ("default", "llama3")  # llama3: the divisors of the angles are a tensor in a GGUF


def rope_of(s: Settings) -> Mapping[str, Any]:
    """RoPE's settings of the layers with full attention. MetadataError if its two spellings contradict each other."""
    found = ropes_of(s)
    full: Mapping[str, Any] = found.get("full_attention", found)
    if odd := next((key for key in full if key.endswith("(in rope_parameters)")), None):
        raise MetadataError(f"{s.path}: {odd} is {full[odd]}, and rope_scaling says otherwise; programs read either: {CURE}")
    return full


def ropes_of(s: Settings) -> Mapping[str, Any]:
    """RoPE's settings, by kind of layer where there are several. MetadataError for a value of another kind."""
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(s.values.get(key), dict | None):
            raise s.refused(key, "an object")
    return rope(s.values, s.model_type)


def rotation(s: Settings) -> dict[str, Any]:
    """The base of RoPE, and how its angles are scaled. MetadataError for a scaling that no key says, such as dynamic."""
    how = rope_of(s)
    kind = str(how.get("rope_type", "default"))
    wrong = s.refused("rope_parameters", "finite numbers")
    keys: dict[str, Any] = {"rope.freq_base": finite(how.get("rope_theta", 10000.0), wrong)}
    if kind in SCALED:
        return keys | SCALED[kind](s, how)
    if kind not in NO_SCALING:
        raise MetadataError(f"{s.path}: rope_type is {kind[:40]!r}; expected {', '.join((*NO_SCALING, *SCALED))}: {CURE}")
    return keys


def linear_scaling(s: Settings, how: Mapping[str, Any]) -> dict[str, Any]:
    """Angles divided by a factor."""
    wrong = s.refused("rope_parameters", "a factor")
    return {"rope.scaling.type": "linear", "rope.scaling.factor": finite(how.get("factor"), wrong)}


# Numbers of YaRN that llama.cpp reads for a model type: its name in the configuration -> the key.
READ = {
    "ministral3": {
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
        "mscale_all_dim": "yarn_log_multiplier",
    }
}


def growth(s: Settings) -> dict[str, Any]:
    """Ministral 3: how much queries grow beyond the context of the training."""
    beta = finite(rope_of(s).get("llama_4_scaling_beta", 0.0), s.refused("rope_parameters", "finite numbers"))
    return {"attention.temperature_scale": beta}


def yarn_scaling(s: Settings, how: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN. MetadataError for numbers of its own that llama.cpp does not read in these architectures."""
    factor = finite(how.get("factor"), s.refused("rope_parameters", "a factor"))
    own, wrong = READ.get(s.model_type, {}), s.refused("rope_parameters", "finite numbers")
    keys = {f"rope.scaling.{key}": finite(how[name], wrong) for name, key in own.items() if how.get(name) is not None}
    taken_off = keys.get("rope.scaling.yarn_log_multiplier", 0.0)
    grown = (0.1 * math.log(factor) + 1) / (0.1 * taken_off * math.log(factor) + 1) if factor > 1 else 1.0
    usual = {"beta_fast": 32, "beta_slow": 1, "attention_factor": grown, "truncate": True, "mscale": None, "mscale_all_dim": None}
    usual = {name: value for name, value in usual.items() if name not in own} | ({"mscale": 1.0} if own else {})
    for key, value in usual.items():
        found = how.get(key, value)
        same = math.isclose(found, value, rel_tol=1e-6) if isinstance(found, float) and value is not None else found == value
        if not same:
            raise MetadataError(
                f"{s.path}: {key} of YaRN is {str(found)[:40]}; expected {value}, as these architectures are computed: {CURE}"
            )
    context = how.get("original_max_position_embeddings", s.values.get("original_max_position_embeddings"))
    if not isinstance(context, int) or not 0 < context < 1 << 32:
        raise s.refused("rope_parameters", "original_max_position_embeddings, a whole number")
    return {"rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.original_context_length": context, **keys}


SCALED: dict[str, Callable[[Settings, Mapping[str, Any]], dict[str, Any]]] = {"linear": linear_scaling, "yarn": yarn_scaling}


def sections(s: Settings) -> dict[str, Any]:
    """How many pairs of a head read which position of a token; [11, 11, 10] where the configuration does not say."""
    found = rope_of(s).get("mrope_section", [11, 11, 10])
    if not isinstance(found, list) or len(found) > 4 or not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in found):
        raise s.refused("rope_parameters", "an mrope_section of three whole numbers")
    return {"rope.dimension_sections": [*found, 0, 0, 0, 0][:4]}


def local_base(s: Settings) -> dict[str, Any]:
    """Gemma 3: the bases of RoPE, each with its class's default. MetadataError if the sliding layers' angles are scaled."""
    local = ropes_of(s).get("sliding_attention", {})
    if local.get("rope_type", "default") != "default":
        raise s.refused("rope_parameters", "no scaling in sliding layers")
    wrong = s.refused("rope_parameters", "finite numbers")
    return {
        "rope.freq_base": finite(rope_of(s).get("rope_theta", 1e6), wrong),
        "rope.freq_base_swa": finite(local.get("rope_theta", 1e4), wrong),
    }


def rope_divisors(s: Settings) -> list[float] | None:
    """The divisors of the angles of `llama3` RoPE, one for each pair; None for another kind. In float64.

    Source: llama.cpp conversion/llama.py, generate_extra_tensors; transformers' modeling_rope_utils.py.
    """
    how = rope_of(s)
    if how.get("rope_type") != "llama3":
        return None
    names = {"rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    names |= {"original_max_position_embeddings": 8192}
    base, factor, low, high, context = (finite(how.get(k, v), s.refused("rope_parameters", "numbers")) for k, v in names.items())
    D, out = head_dim(s), []
    if not (base > 0 and factor > 0 and 0 < low < high and context > 0):
        raise s.refused("rope_parameters", "positive numbers, low_freq_factor below high_freq_factor")
    for i in range(0, D, 2):
        turns = context / (2 * math.pi * base ** (i / D))  # within the context of the training
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(1 / ((1 - smooth) / factor + smooth))
    return out
