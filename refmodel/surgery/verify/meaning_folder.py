"""What a config.json says, whatever its spelling: names that changed, defaults written out, RoPE in its old and new form."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...hf.spelling import ROPE, default, rope

# Keys by which nothing is computed in a forward pass.
STEERS_NOTHING = {
    "attention_dropout", "attn_pdrop", "chunk_size_feed_forward", "embd_pdrop", "hidden_dropout", "hidden_dropout_prob", "id2label",
    "initializer_range", "is_decoder", "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "output_attentions",
    "output_hidden_states", "output_router_logits", "pretraining_tp", "problem_type", "resid_pdrop", "residual_dropout",
    "return_dict", "router_aux_loss_coef", "router_jitter_noise", "transformers_version", "unsloth_fixed", "unsloth_version",
    "use_cache",
}  # fmt: skip
GENERATION = re.compile(r"^(top_[kp]|temperature|num_beams\w*|do_sample|(min|max)_length|(no_)?repeat\w*|repetition_penalty)$")
RENAMED = {"torch_dtype": "dtype", "n_ctx": "max_position_embeddings"}


def said(config: Mapping[str, Any], model_type: str, home: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> value of everything in a configuration that affects a number, in one spelling.

    model_type, home  the model type whose defaults count, and the part of the configuration that describes the layers
    """
    out = {}
    for name, value in leaves(plain(config, model_type, home), ""):
        out[name] = value
    return out


def plain(part: Mapping[str, Any], model_type: str, home: Mapping[str, Any]) -> dict[str, Any]:
    """One level of a configuration, in one spelling."""
    out: dict[str, Any] = {}
    inner = part is home
    for key, value in part.items():
        if key.startswith("_") or key in STEERS_NOTHING or GENERATION.match(key) or key == "rys_relayer":
            continue
        if isinstance(value, dict) and key not in ROPE:
            out[key] = plain(value, model_type, home)
        elif key not in ROPE:
            out[RENAMED.get(key, key)] = one_word(key, value)
    if any(key in part for key in ROPE):
        out["rope_parameters"] = rope(part, model_type if inner else "")
    if inner and part.get("use_sliding_window") is False:
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
            yield from leaves(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list) and value:
        yield f"{where} (length)", len(value)
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{where}[{i}]")
    else:
        yield where, value


def by_default(name: str, value: Any, model_type: str) -> bool:
    """Whether a key says what holds without it."""
    if value in (None, False, "") or value == [] or value == {}:
        return True
    known = default(name.rpartition(".")[2], model_type)
    return (known is not None and type(known) is not bool and value == known) or (known is True and value is True)
