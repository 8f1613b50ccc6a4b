"""RoPE in a config.json, in either spelling, as the keys and the tensor of a GGUF.

Source: llama.cpp conversion/base.py, TextModel.set_gguf_parameters, conversion/llama.py, generate_extra_tensors; transformers'
modeling_rope_utils.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import MetadataError
from ..ops.rope import Rope
from .settings import CURE, Settings, finite
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
# Numbers that the converter writes for every model type; an earlier name is taken first.
WRITTEN = {
    "yarn_ext_factor": ("extrapolation_factor",),
    "yarn_attn_factor": ("attention_factor", "attn_factor"),
    "yarn_beta_fast": ("beta_fast",),
    "yarn_beta_slow": ("beta_slow",),
}


def growth(s: Settings) -> dict[str, Any]:
    """Ministral 3: how much queries grow beyond the context of the training."""
    beta = finite(rope_of(s).get("llama_4_scaling_beta", 0.0), s.refused("rope_parameters", "finite numbers"))
    return {"attention.temperature_scale": beta}


def yarn_scaling(s: Settings, how: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN: the numbers that llama.cpp has keys for. MetadataError for a factor or a context that is none."""
    factor = finite(how.get("factor"), s.refused("rope_parameters", "a factor"))
    own, wrong = READ.get(s.model_type, {}), s.refused("rope_parameters", "finite numbers")
    said = {key: next((how[name] for name in names if how.get(name) is not None), None) for key, names in WRITTEN.items()}
    said |= {key: how.get(name) for name, key in own.items()}
    keys = {f"rope.scaling.{key}": finite(value, wrong) for key, value in said.items() if value is not None}
    context = how.get("original_max_position_embeddings", s.values.get("original_max_position_embeddings"))
    if not isinstance(context, int) or not 0 < context < 1 << 32:
        raise s.refused("rope_parameters", "original_max_position_embeddings, a whole number")
    return {"rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.original_context_length": context, **keys}


def yarn_numbers(s: Settings) -> dict[str, float]:
    """The numbers of YaRN as transformers has them; `truncate` is 0 or 1. MetadataError for one that is out of its range.

    Source: _compute_yarn_parameters in transformers' modeling_rope_utils.py.
    """
    how, wrong = rope_of(s), s.refused("rope_parameters", "positive finite numbers of YaRN")
    fast, slow, factor = (
        finite(how.get(key) or usual, wrong) for key, usual in (("beta_fast", 32), ("beta_slow", 1), ("factor", 1))
    )
    both = [finite(how.get(key) or 0, wrong) for key in ("mscale", "mscale_all_dim")]
    grown = growth_of(factor, both[0]) / growth_of(factor, both[1]) if all(both) else growth_of(factor, 1.0)
    own = how.get("attention_factor")
    whole = "full_attention" in ropes_of(s) or bool(how.get("truncate", True))  # the class does not look for it there
    out = {"beta_fast": fast, "beta_slow": slow, "truncate": float(whole), "attention_factor": grown}
    out |= {} if own is None else {"attention_factor": finite(own, wrong)}
    if not (factor > 0 and all(out[key] > 0 for key in ("beta_fast", "beta_slow", "attention_factor"))):
        raise wrong
    return out


def growth_of(factor: float, multiplier: float) -> float:
    """How much what YaRN rotates grows. Source: get_mscale in transformers' modeling_rope_utils.py."""
    return 0.1 * multiplier * math.log(factor) + 1 if factor > 1 else 1.0


def unusual_yarn(s: Settings) -> dict[str, tuple[float, float]]:
    """The numbers of YaRN that no key says and llama.cpp takes otherwise: name -> the number, and the one that llama.cpp takes."""
    how, own = rope_of(s), READ.get(s.model_type, {})
    if how.get("rope_type") != "yarn":
        return {}
    found, wrong = yarn_numbers(s), s.refused("rope_parameters", "finite numbers")
    factor, less = (finite(how.get(key) or 0, wrong) for key in ("factor", "mscale_all_dim"))
    usual = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": 1.0} | {key: found[key] for key in own if key in found}
    usual |= {"attention_factor": growth_of(factor, 1.0) / growth_of(factor, less if own else 0.0)}
    return {key: (found[key], value) for key, value in usual.items() if not math.isclose(found[key], value, rel_tol=1e-6)}


def yarn_by_its_numbers(s: Settings, rope: Rope) -> Rope:
    """YaRN with all numbers of a configuration, in float64. MetadataError for one that is out of its range.

    rope  what the keys make: its base, n_rot and scale hold

    Source: _compute_yarn_parameters in transformers' modeling_rope_utils.py.
    """
    said, how = yarn_numbers(s), rope_of(s)
    wrong = s.refused("rope_parameters", "original_max_position_embeddings, a positive number, and a base above 1")
    context = finite(how.get("original_max_position_embeddings", s.values.get("original_max_position_embeddings")), wrong)
    if not (context > 0 and rope.base > 1):
        raise wrong
    turns = (said["beta_fast"], said["beta_slow"])
    low, high = (rope.n_rot * math.log(context / (b * 2 * math.pi)) / (2 * math.log(rope.base)) for b in turns)
    if said["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.n_rot - 1)
    width = high - low or 0.001
    kept = tuple(1.0 - min(max((i - low) / width, 0.0), 1.0) for i in range(rope.n_rot // 2))
    return replace(rope, unscaled=kept, magnitude=said["attention_factor"])


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


def rope_divisors(s: Settings, n_rot: int) -> list[float] | None:
    """The divisors of the angles of `llama3` RoPE, one for each pair of n_rot numbers; None for another kind. In float64.

    Source: llama.cpp conversion/llama.py, generate_extra_tensors; transformers' modeling_rope_utils.py.
    """
    how = rope_of(s)
    if how.get("rope_type") != "llama3":
        return None
    names = {"rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    names |= {"original_max_position_embeddings": 8192}
    base, factor, low, high, context = (finite(how.get(k, v), s.refused("rope_parameters", "numbers")) for k, v in names.items())
    out = []
    if not (base > 0 and factor > 0 and 0 < low < high and context > 0):
        raise s.refused("rope_parameters", "positive numbers, low_freq_factor below high_freq_factor")
    for i in range(0, n_rot, 2):
        turns = context / (2 * math.pi * base ** (i / n_rot))  # within the context of the training
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(1 / ((1 - smooth) / factor + smooth))
    return out
