"""Which model types are known, and what is refused: by name, by a value, or, for those that are not known, on suspicion."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...machine.files import text_of
from .folders import FACTS, KINDS
from .rules import Home

# Whose layers are all alike, or differ only in what the lists of the configuration say.
ALIKE = {
    "apertus", "arcee", "aria_text", "bitnet", "cohere", "cosmos3_edge_text", "emu3_text_model", "ernie4_5", "falcon",
    "falcon_h1", "falcon_mamba", "flex_olmo", "gemma", "glm", "glm4", "glm4v_text", "glm_ocr_text", "gpt_neox", "granite",
    "granite4_vision_text", "granitemoe", "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe",
    "hunyuan_vl_text", "hyperclovax", "internlm3", "iquestcoder", "jais2", "jetmoe", "llama", "mamba", "mamba2",
    "minimax_m2", "ministral3", "mistral", "mixtral", "nanochat", "nemotron", "olmo", "olmo2", "olmoe", "opt",
    "paddleocr_vl_text", "persimmon", "phi", "phi3", "phi4_multimodal", "phimoe", "qwen3_vl_text", "seed_oss", "solar_open",
    "stablelm", "starcoder2", "youtu",
}  # fmt: skip

# Whose layers hang on their place in a way that no configuration can say.
REFUSED = {
    "bailing_hybrid": "its linear attention decays by the layer's number",
    "beam": "its residuals are mixed by the layer's number",
    "deepseek_v4": "its first layers route by a hash of the token",
    "diffllama": "its attention subtracts by 0.8 - 0.6 exp(-0.3 i), i the layer's number",
    "dots3_note_text": "its sizes are listed by the layer's number",
    "flint": "its first two layers and its last one are of another kind by their place",
    "gemma3n_text": "its embeddings for each layer and its shared keys go by the layer's number",
    "glm5_next_text": "its indexers read what earlier layers found",
    "glm_moe_dsa": "its indexers read what earlier layers found",
    "hrm_text": "its layers run in loops",
    "hy_v4": "its indexers read what earlier layers found",
    "inkling2_text": "its residuals go over blocks of layers",
    "inkling_text": "its residuals go over blocks of layers",
    "kimi_linear": "its kinds are listed by numbers from one on",
    "lfm3": "its kinds follow from the place in a way that is not known here",
    "longcat_flash": "each of its layers counts twice",
    "minicpm3": "its residuals are divided by the root of the number of layers",
    "minimax": "its linear attention decays by the layer's number and their count",
    "minimax_m3_vl_text": "its sparse layers are listed apart",
    "mistral_large4_text": "its keys are shared between layers by number",
    "modernbert-decoder": "its first layer has no norm",
    "molmo2_text": "its scaled layers are listed by number",
    "muse_glimmer_text": "its kinds are counted from the end",
    "muse_spark_text": "its kinds are counted from the end",
    "qwen4_exp_text": "its embeddings for single layers go by the layer's number",
    "rwkv": "its states are rescaled every so many layers",
    "step3p5": "its sizes are listed by the layer's number",
    "zamba": "its layers share one block",
    "zamba2": "its layers share one block",
    "zaya": "its first layer has no link to an earlier one",
}  # fmt: skip

TABLES = FACTS.keys() | ALIKE | REFUSED.keys()

# What a value of the configuration adds to that: model type -> key, the class's default, the value that is harmless, and why.
REFUSED_BY_VALUE: dict[str, tuple[tuple[str, Any, Any, str], ...]] = {
    "gemma4_text": (
        ("hidden_size_per_layer_input", 256, 0, "embeddings for each layer are packed into one table"),
        ("num_kv_shared_layers", 0, 0, "the last layers read keys of earlier ones"),
        ("per_layer_config", None, None, "sizes are listed by the layer's number"),
    ),
}

# Names that differ between a configuration's top and its text part.
TEXT_PARTS = {"gemma3": "gemma3_text", "gemma4": "gemma4_text", "llama4": "llama4_text"}

# What may hang on a place, in the configuration of a model type that is not known.
SUSPECT = re.compile(
    r"(interval|_period|_every|pattern|_freq$|first_k|_offset|sparse_step|layer_step|skip_layer|max_window|kv_shared)"
)
WINDOWS = re.compile(r"(sliding|attention|local|chunk)_?(window|attention)(_size)?$|attention_chunk_size")
COVERED = {
    "full_attention_interval", "sliding_window_pattern", "max_window_layers", "global_attn_every_n_layers", "attn_layer_period",
    "attn_layer_offset",
}  # fmt: skip
LISTS = {KINDS, "layers_block_type"}
ONE_IS_NONE = re.compile(r"(interval|_period|_every|_freq$|_step$)")  # every 1st layer is every layer
CODE = re.compile(
    r"layer_(idx|id|index|number)\w*\s*(\+\s*1|[%<>*/]|[=!]=|in\b|not\b)|\[(self\.)?layer_(idx|id|index)\]|[%<>]\s*\w*layer_|num_hidden_layers\s*[-*/]"
)


def model_type(config: Mapping[str, Any], home: Home) -> str:
    """The model type whose class reads the layers: that of the text part, or the top's.

    home  the part of the configuration with the number of layers
    """
    own = str(home.get("model_type") or config.get("model_type") or "")
    named = TEXT_PARTS.get(own, f"{own}_text")
    return named if own not in TABLES and named in TABLES else own


def objection(folder: Path, name: str, home: Home) -> str:
    """Why no route of a model of this type can be written; empty if one can.

    name  the model type
    home  the part of the configuration with the number of layers
    """
    if name in REFUSED:
        return f"model type {name}: {REFUSED[name]}"
    for key, default, harmless, why in REFUSED_BY_VALUE.get(name, ()):
        if home.get(key, default) != harmless:
            return f"model type {name}, {key} = {str(home.get(key, default))[:40]}: {why}"
    if name in TABLES:
        return ""
    found = suspicion(home) or code_suspicion(folder)
    return found and f"model type {name or '(none)'} is not known here, and {found}"


def suspicion(home: Home) -> str:
    """What in the configuration of an unknown model type may depend on a layer's place; empty if nothing does."""
    listed = bool(LISTS & home.keys())
    for key, value in home.items():
        if value in (None, False, 0, "", [], {}) or isinstance(value, (dict, list)) or (value == 1 and ONE_IS_NONE.search(key)):
            continue
        if WINDOWS.search(key) and not listed and home.get("use_sliding_window", True):
            return f"{key} is {json.dumps(value)} with no layer_types that says which layers it is for"
        if SUSPECT.search(key) and not (listed and key in COVERED):
            return f"{key} is {json.dumps(value)}, from which a layer's kind may follow by its place"
    return ""


def code_suspicion(folder: Path) -> str:
    """The line in a folder's Python files that may depend on a layer's number; empty if there is none."""
    for path in sorted(folder.glob("*.py")):
        for count, line in enumerate(text_of(path, errors="replace").splitlines(), 1):
            if CODE.search(line) and not line.lstrip().startswith("#"):
                return f"{path.name}, line {count}, reads a layer's number: {line.strip()[:60]}"
    return ""
