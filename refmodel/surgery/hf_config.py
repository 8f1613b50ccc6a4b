"""The config.json of a routed Hugging Face folder: every per-layer fact follows its layer."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import __version__
from ..errors import MetadataError
from ..hf.by_place.folders import FACTS
from ..hf.by_place.mixers import left_alone
from ..hf.by_place.model_types import model_type, objection
from ..hf.by_place.rules import Fact, settled
from ..hf.folder import CONFIG, ELSEWHERE, LAYER, LAYER_NUMBERS, Folder
from ..hf.spelling import foreign
from .copy_map import Plan

# Lists in a configuration, by name. A list of any other name stops the copy if it could belong to the layers.
PER_LAYER = {
    "activation_sparsity_pattern", "attn_type_list", "block_configs", "ffn_multipliers", "intermediate_size", "layer_rope_theta",
    "layer_types", "layers_block_type", "mlp_layer_types", "no_rope_layers", "num_attention_heads", "num_attention_heads_per_layer",
    "num_key_value_heads", "num_kv_heads", "num_query_heads", "sliding_window_pattern",
}  # fmt: skip


OF_THE_MODEL = {
    "architectures", "bad_words_ids", "block_types", "bos_token_id", "eos_token_id", "keys_to_ignore_at_inference",
    "long_factor", "mrope_section", "pad_token_id", "short_factor", "suppress_tokens",
}  # fmt: skip


# Numbers from which a layer's nature follows by its place, where the model type's facts do not account for them.
BY_PLACE = {
    "decoder_sparse_step": 1,
    "first_k_dense_replace": 0,
    "hybrid_override_pattern": "",
    "interleave_moe_layer_step": 1,
    "moe_layer_freq": 1,
    "no_rope_layer_interval": 0,
    "num_kv_shared_layers": 0,
    "scale_attn_by_inverse_layer_idx": False,
}  # with the value that has no effect


BY_PLACE_WITHOUT_LIST = {"attn_layer_offset", "attn_layer_period", "sliding_window_pattern"}


def routed_config(folder: Folder, plan: Plan) -> dict[str, Any]:
    """The configuration of the copy: the number of layers, every per-layer list along the map, and where the copy comes from.

    MetadataError for what cannot follow the route.
    """
    name = model_type(folder.config, folder.homes[-1])
    if not plan.route.is_identity and (why := objection(folder.path, name, folder.homes[-1])):
        raise MetadataError(
            f"{folder.path / CONFIG}: {why}. A route would change that; nothing was written. Try a GGUF of the model."
        )
    out = routed_home(folder, folder.config, plan, "")
    out["rys_relayer"] = {
        "source_repo_id": folder.config.get("_name_or_path") or folder.path.resolve().name,
        "source_num_layers": folder.n_layer,
        "target_num_layers": len(plan.route.layers),
        "spec": plan.route.canonical,
        "layer_indices": list(plan.route.layers),
        "duplication_counts": {str(layer): n for layer, n in sorted(Counter(plan.route.layers).items()) if n > 1},
        "tool": f"refmodel {__version__}",
    }
    return out


def routed_home(folder: Folder, home: Mapping[str, Any], plan: Plan, where: str) -> dict[str, Any]:
    """One level of the configuration as the copy has it. MetadataError for what cannot follow the route."""
    out: dict[str, Any] = {}
    facts = facts_of(folder) if home is folder.homes[-1] else ()
    accounted = {key for fact in facts for key in (fact.name, *fact.keys)}
    for key, value in home.items():
        name = f"{where}{key}"
        if key == "rys_relayer":
            continue  # where the source itself came from
        if key == "num_hidden_layers":
            out[key] = len(plan.route.layers)
        elif key == "quantization_config":
            out[key] = renamed_modules(folder, value, plan, name)
        elif isinstance(value, dict):
            name_of = model_type(folder.config, folder.homes[-1])
            own_world = (key.endswith("_config") and key != "text_config") or foreign(key, home, name_of)
            out[key] = value if own_world else routed_home(folder, value, plan, f"{name}.")
        elif isinstance(value, list):
            out[key] = routed_list(folder, key, value, plan, name)
        else:
            if key not in accounted:
                check_place(folder, home, key, value, plan, name)
            out[key] = value
    return settled(str(folder.path / CONFIG), out, facts, [plan.follow(fact.read(home, folder.n_layer)) for fact in facts])


def facts_of(folder: Folder) -> tuple[Fact, ...]:
    """The facts in which this model's layers differ; empty for an unknown model type."""
    return FACTS.get(model_type(folder.config, folder.homes[-1]), ())


def not_run(folder: Folder, plan: Plan) -> str:
    """Why transformers does not run the copy, whatever its configuration says; empty if it does."""
    home = folder.homes[-1]
    return left_alone(model_type(folder.config, home), home, folder.n_layer, plan.route.layers)


def routed_list(folder: Folder, key: str, value: list[Any], plan: Plan, name: str) -> list[Any]:
    """A list along the map if it is of the layers, unchanged if it is not. MetadataError if that is not known."""
    fits = len(value) in (plan.route.n_layer, plan.n_source)
    if key in OF_THE_MODEL or not value:
        return value
    if key in PER_LAYER:
        if not fits:
            said = f"{folder.path / CONFIG}: {name} has {len(value)} values"
            raise MetadataError(f"{said}; expected {plan.route.n_layer}, one for each layer; correct the list")
        return plan.follow(value)
    if key in LAYER_NUMBERS:
        return [position for position, source in enumerate(plan.route.layers) if source in value]
    numbers = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < plan.n_source for v in value)
    if fits or numbers:
        why = "one value for each layer" if fits else "what may be numbers of layers"
        raise MetadataError(
            f"{folder.path / CONFIG}: {name} has {why}, but its meaning is not known here, so it cannot follow the "
            "route; remove it if it says nothing of layers"
        )
    return value


def check_place(folder: Folder, home: Mapping[str, Any], key: str, value: Any, plan: Plan, name: str) -> None:
    """MetadataError for a key that says by a layer's place what the layer is, unless the route changes nothing."""
    neutral = key not in BY_PLACE or value in (None, BY_PLACE[key])
    unlisted = key in BY_PLACE_WITHOUT_LIST and "layer_types" not in home and value is not None
    if (not neutral or unlisted) and not plan.route.is_identity:
        raise MetadataError(
            f"{folder.path / CONFIG}: {name} says what a layer is by its place; "
            "a route would make it wrong; list the layers instead"
        )


def renamed_modules(folder: Folder, value: Any, plan: Plan, where: str) -> Any:
    """A quantization's settings, with the modules that they name (modules_to_not_convert, ignore, ...) renumbered along the map."""
    if isinstance(value, dict):
        names = renamed(folder, list(value), plan, where)
        return {new: renamed_modules(folder, value[old], plan, f"{where}.{old}") for new, old in names.items()}
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return list(renamed(folder, value, plan, where))
    return value


def renamed(folder: Folder, names: Sequence[str], plan: Plan, where: str) -> dict[str, str]:
    """New name -> old name of modules; those outside of the trunk keep theirs. MetadataError for a pattern with layer numbers."""
    prefixes = set()
    for name in names:
        if name.startswith("re:") and re.search(r"layers.*\d", name):
            raise MetadataError(
                f"{folder.path / CONFIG}: {where} has the pattern {name}, which cannot follow the route; list the modules by name"
            )
        if (match := LAYER.match(name)) and not ELSEWHERE.search(match[1]):
            prefixes.add(match[1])
    marked = {f"{name}." if LAYER.fullmatch(name) else name: name for name in names}  # a layer as a whole, too
    for prefix in prefixes:
        step = replace(plan, prefix=prefix).origins(marked)
        marked = {new: marked[old] for new, old in step.items()}
    return {new.removesuffix("."): old for new, old in marked.items()}
