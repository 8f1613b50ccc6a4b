"""What a config.json says, whatever its spelling: names that changed, defaults written out, RoPE in its old and new form."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...hf.by_place.folders import KINDS
from ...hf.by_place.model_types import ALIKE
from ...hf.by_place.rules import FULL
from ...hf.spelling import SWITCHED, default, defaults, foreign, keys_of, rope, rules

# Keys by which nothing is computed in a forward pass.
STEERS_NOTHING = {
    "attention_dropout", "attn_implementation", "attn_pdrop", "chunk_size_feed_forward", "embd_pdrop", "hidden_dropout",
    "hidden_dropout_prob", "id2label", "initializer_range", "keys_to_ignore_at_inference", "label2id", "model_max_length",
    "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "problem_type",
    "resid_pdrop", "residual_dropout", "return_dict", "router_aux_loss_coef", "router_jitter_noise", "transformers_version",
    "unsloth_fixed", "unsloth_version", "use_cache",
}  # fmt: skip
OF_ENCODERS = {"is_decoder", "is_encoder_decoder"}  # no decoder-only class reads them
GENERATION = {  # how a text is drawn, which older versions of transformers kept here
    "diversity_penalty", "do_sample", "early_stopping", "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
    "length_penalty", "max_length", "max_new_tokens", "max_time", "min_length", "min_new_tokens", "min_p",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_logits", "output_scores",
    "penalty_alpha", "renormalize_logits", "repetition_penalty", "return_dict_in_generate", "temperature", "top_k", "top_p",
    "typical_p",
}  # fmt: skip
RENAMED = {"torch_dtype": "dtype", "n_ctx": "max_position_embeddings"}
# Values that mean "none" in every class that has these keys.
ZERO_IS_NONE = {
    "embedding_dropout", "first_k_dense_replace", "hidden_dropout", "layerdrop", "moe_router_logit_softcapping",
    "mtp_num_hidden_layers", "num_kv_shared_layers", "num_nextn_predict_layers", "num_shared_experts", "shared_intermediate_size",
}  # fmt: skip
PLACE = r"(\[\d+\]| \(length\))+$"  # of a value in a list, in a path
# What transformers takes where a key is absent and the class says nothing; all but the first are RoPE's.
READ_BY_ALL = {"is_causal": True, "truncate": True, "beta_fast": 32, "beta_slow": 1, "partial_rotary_factor": 1}


def said(config: Mapping[str, Any], model_type: str, home: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> value of everything in a configuration that affects a number, in one spelling.

    model_type, home  the model type whose defaults count, and the part of the configuration that describes the layers
    """
    return dict(leaves(plain(config, model_type, home), ""))


def plain(part: Mapping[str, Any], model_type: str, home: Mapping[str, Any]) -> dict[str, Any]:
    """One level of a configuration, in one spelling."""
    out: dict[str, Any] = {}
    inner = part is home
    ropes = keys_of(model_type if inner else "")
    ignored = STEERS_NOTHING | GENERATION | ropes | {"rys_relayer"} | (OF_ENCODERS if model_type in defaults() else set())
    for key, value in part.items():
        if key.startswith("_") or key in ignored or foreign(key, part, model_type):
            continue
        nested = isinstance(value, dict)
        out[RENAMED.get(key, key)] = plain(value, model_type, home) if nested else one_word(key, value)
    if any(key in part for key in ropes) or (inner and default("rope_theta", model_type)):
        out["rope_parameters"] = rope(part, model_type if inner else "")
    if inner and model_type in SWITCHED and not part.get("use_sliding_window"):
        out = {key: value for key, value in out.items() if key not in ("sliding_window", "max_window_layers")}
    return out


def one_word(key: str, value: Any) -> Any:
    """A value in one spelling: torch.bfloat16 is bfloat16, a list of one end token is that token."""
    if key in RENAMED and isinstance(value, str):
        return value.removeprefix("torch.")
    return value[0] if key.endswith("_token_id") and isinstance(value, list) and len(value) == 1 else value


def leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Path -> value of everything in a JSON value that is not a container."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            name = json.dumps(key) if re.search(r"[.\[\]\"]| \(length\)", key) else key  # no key passes for a path
            yield from leaves(inner, f"{where}.{name}" if where else name)
    elif isinstance(value, list) and value:
        yield f"{where} (length)", len(value)
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{where}[{i}]")
    else:
        yield where, value


def by_default(name: str, value: Any, model_type: str, home: Mapping[str, Any]) -> bool:
    """Whether a key says what holds without it.

    home  the part of the configuration without the key that describes the layers: a class derives some values from others
    """
    last = name.rpartition(".")[2]
    key = re.sub(PLACE, "", last)
    place = last.removeprefix(key)
    if key == KINDS and model_type in ALIKE:
        return bool(place.endswith("(length)") or value == FULL)
    if value is None and (model_type, key) in rules():
        return True
    known = default(key, model_type, home)
    known = READ_BY_ALL.get(key) if known is None else known
    if place and isinstance(known, list):
        known = len(known) if "length" in place else next(iter(known[int(place[1:-1]) :]), None)
    if known is not None:
        return type(value) is type(known) and bool(value == known) if isinstance(known, bool) else bool(value == known)
    if isinstance(value, bool):
        return not value and model_type in defaults()
    if key == "rope_type":
        return bool(value == "default")
    return value in (None, "", [], {}) or (value == 0 and key in ZERO_IS_NONE)
