"""Ollama's own exports, read as llama.cpp names things: its converter has other keys, other names, and all parts in one file.

Weights stay as they are; each note says what was renamed. llama.cpp itself refuses most of these files, but opens a copy of them.
Source: convert/convert_qwen3next.go, convert_gemma3.go, convert_mistral.go and convert_lfm2.go of Ollama, and what it patches into
llama.cpp for its older files; llama.cpp pull requests 22954 and 25334.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf import GGUFValueType as T

from ..arch import ARCHITECTURES
from ..errors import MetadataError
from ..gguf.metadata import Field, Metadata, Strings
from ..gguf.reader import GgufFile
from ..gguf.tensor import AnyTensor
from ..gguf.writer import field

OTHER_PARTS = {"v.": "of the image part", "mm.": "of the image part's projector", "mtp.": "of a prediction block (MTP)"}
# Keys of those parts, and second spellings of keys that llama.cpp has
OTHER_KEYS = re.compile(r"\w+\.(vision\.|mm\.|mrope_sections$|rope\.mrope_section$)")
# What its runtime computes by a key and llama.cpp always: architecture -> key -> the value that llama.cpp's graph has
ALWAYS: dict[str, dict[str, Any]] = {
    "qwen35": {"ssm.v_head_reordered": True},
    "qwen35moe": {"ssm.v_head_reordered": True, "norm_top_k_prob": True},
    "qwen3moe": {"norm_top_k_prob": True},
    "qwen3next": {"ssm.v_head_reordered": False, "norm_top_k_prob": True},
    "mistral3": {"rope.scaling.mscale": 1.0},
}
LONG_CONTEXT, FACTOR = 131072, 8.0  # of Gemma 3 from 4B on; the 1B has neither


@dataclass
class Draft:
    """A file while it is renamed.

    arch     general.architecture
    fields   key -> value
    tensors  name -> tensor
    notes    what was done, in words
    """

    arch: str
    fields: dict[str, Field]
    tensors: dict[str, AnyTensor]
    notes: list[str]

    def __contains__(self, name: str) -> bool:
        return f"{self.arch}.{name}" in self.fields

    def value(self, name: str) -> Any:
        """A value below the architecture's name; None if it is missing."""
        return self.fields[f"{self.arch}.{name}"].value() if name in self else None

    def text(self, name: str) -> str | None:
        """The same of a text; None for anything else."""
        value = self.value(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int:
        """The same of a whole number; 0 for anything else."""
        value = self.value(name)
        return value if isinstance(value, int) else 0

    def put(self, name: str, value: Field, note: str) -> None:
        """Set a value below the architecture's name, and say so."""
        self.fields[f"{self.arch}.{name}"] = value
        self.notes.append(note)


def as_llama_cpp_names(file: GgufFile) -> GgufFile:
    """The file with the keys and tensor names of llama.cpp; `notes` says what was renamed or left out. Most files are as they are.

    MetadataError for a key that says that the file computes otherwise than llama.cpp's graph.
    """
    arch = file.metadata.str("general.architecture", "")
    refuse_other_graphs(file.metadata, arch)
    draft = Draft(arch, dict(file.metadata.fields), dict(file.tensors), [])
    for rule in RULES.get(arch, ()):
        rule(draft)
    if not draft.notes:
        return file
    return replace(file, metadata=Metadata(file.path, draft.fields), tensors=draft.tensors, notes=tuple(draft.notes))


def refuse_other_graphs(md: Metadata, arch: str) -> None:
    """MetadataError for a key of Ollama's whose value is not what llama.cpp computes."""
    for name, expected in ALWAYS.get(arch, {}).items():
        read: Callable[[str, Any], Any] = md.bool if isinstance(expected, bool) else md.float
        if (found := read(f"{arch}.{name}", expected)) != expected:
            raise MetadataError(
                f"{md.path}: {arch}.{name} is {found}; llama.cpp's graph of {arch} is for {expected}: convert the model again, "
                "with llama.cpp's converter"
            )


def only_the_language_model(d: Draft) -> None:
    """Leave out the tensors of other parts, and their keys."""
    for start, what in OTHER_PARTS.items():
        gone = [name for name in d.tensors if name.startswith(start)]
        if gone:
            d.notes.append(f"{len(gone)} tensors {start}* are left out: {what}")
        for name in gone:
            del d.tensors[name]
    if d.notes:
        d.fields = {key: value for key, value in d.fields.items() if not OTHER_KEYS.match(key)}


def one_head_count(d: Draft) -> None:
    """One number of key/value heads, where a list has 0 for blocks without attention; these are then listed as recurrent."""
    name, counts = "attention.head_count_kv", d.value("attention.head_count_kv")
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "iu":
        return
    some = set(counts[counts > 0].tolist())
    if len(some) != 1 or counts.all() or (counts < 0).any():
        return
    d.put(name, field(T.UINT32, some.pop()), f"{name} is a list with 0 for blocks without attention")
    if "attention.recurrent_layers" not in d:
        d.fields[f"{d.arch}.attention.recurrent_layers"] = field(T.ARRAY, counts == 0, T.BOOL)


def four_sections(d: Draft) -> None:
    """A fourth section of the rotated pairs, which is empty, where a file lists three."""
    name, sections = "rope.dimension_sections", d.value("rope.dimension_sections")
    if isinstance(sections, np.ndarray) and len(sections) == 3 and sections.dtype.kind in "iu":
        d.put(name, field(T.ARRAY, [*sections, 0], T.INT32), f"{name} lists three sections; the fourth is empty")


def dt_is_a_bias(d: Draft) -> None:
    """ssm_dt under llama.cpp's name, ssm_dt.bias."""
    short = [name for name in d.tensors if re.fullmatch(r"blk\.\d+\.ssm_dt", name) and f"{name}.bias" not in d.tensors]
    if short:
        d.notes.append("ssm_dt is llama.cpp's ssm_dt.bias")
        named = {name: f"{name}.bias" for name in short}
        d.tensors = {named.get(name, name): replace(t, name=named.get(name, name)) for name, t in d.tensors.items()}


OLD_BASES = {"rope.global.freq_base": "rope.freq_base", "rope.local.freq_base": "rope.freq_base_swa"}
GEMMA_DEFAULTS = {"attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4}


def gemma3_keys(d: Draft) -> None:
    """The keys that Ollama's Gemma 3 has under other names, or leaves to its runtime: RoPE's bases and factor, epsilon."""
    if not d.notes and "attention.layer_norm_rms_epsilon" in d and not any(name in d for name in OLD_BASES):
        return
    for old, new in OLD_BASES.items():
        if old in d and new not in d:
            d.put(new, d.fields[f"{d.arch}.{old}"], f"{old} is llama.cpp's {new}")
    for name, default in GEMMA_DEFAULTS.items():
        if name not in d:
            d.put(name, field(T.FLOAT32, default), f"{name} is missing: {default:g}, as in all of Gemma 3")
    if "rope.scaling.type" not in d and d.number("context_length") >= LONG_CONTEXT:
        d.put("rope.scaling.type", field(T.STRING, "linear"), f"rope.scaling is missing: linear, factor {FACTOR:g}, as from 4B on")
        d.put("rope.scaling.factor", field(T.FLOAT32, FACTOR), "")
        d.notes.pop()


MISTRAL_KEYS = {
    "rope.scaling.beta_fast": "rope.scaling.yarn_beta_fast",
    "rope.scaling.beta_slow": "rope.scaling.yarn_beta_slow",
    "rope.scaling.mscale_all_dim": "rope.scaling.yarn_log_multiplier",
    "rope.scaling_beta": "attention.temperature_scale",
}


def mistral3_keys(d: Draft) -> None:
    """The numbers of YaRN and of growing queries under llama.cpp's names; a scaling without a type is none."""
    if d.text("rope.scaling.type") == "":
        d.fields = {key: value for key, value in d.fields.items() if not key.startswith("mistral3.rope.scaling.")}
        d.notes.append("rope.scaling.type is empty: there is no scaling")
    for old, new in MISTRAL_KEYS.items():
        if old in d and new not in d:
            d.put(new, d.fields[f"{d.arch}.{old}"], f"{old} is llama.cpp's {new}")
    pre = d.fields.get("tokenizer.ggml.pre")
    if d.notes and (pre is None or (pre.type == T.STRING and pre.value() in ("", "default"))):
        d.fields["tokenizer.ggml.pre"] = field(T.STRING, "tekken")
        d.notes.append("tokenizer.ggml.pre is missing or default: tekken, as in all of these models")


def lfm2_sizes(d: Draft) -> None:
    """One number of query heads, where a list has 0 for convolutions; the inner width that the tensors have."""
    name, counts = "attention.head_count", d.value("attention.head_count")
    if isinstance(counts, np.ndarray) and counts.dtype.kind in "iu" and len(some := set(counts.tolist()) - {0}) == 1:
        d.put(name, field(T.UINT32, some.pop()), f"{name} is a list with 0 for convolutions")
    gate, width = d.tensors.get("blk.0.ffn_gate.weight"), d.value("feed_forward_length")
    rows = gate.shape[-2] if gate is not None and len(gate.shape) > 1 else width  # leading dimensions of 1 do not count
    if isinstance(width, int) and width != rows:
        note = f"feed_forward_length is {width}, but blk.0.ffn_gate.weight has {rows} rows, which count"
        d.put("feed_forward_length", field(T.UINT32, rows), note)


def the_last_norm(d: Draft) -> None:
    """output_norm.weight under llama.cpp's name in lfm2, token_embd_norm.weight."""
    old, new = "output_norm.weight", "token_embd_norm.weight"
    if old in d.tensors and new not in d.tensors:
        d.tensors[new] = replace(d.tensors.pop(old), name=new)
        d.notes.append(f"{old} is llama.cpp's {new}")


def as_many_tokens_as_rows(d: Draft) -> None:
    """A vocabulary cut to the rows of the embedding; those of the image part follow them."""
    tokens, embedding = d.fields.get("tokenizer.ggml.tokens"), d.tensors.get("token_embd.weight")
    if not d.notes or tokens is None or embedding is None or tokens.item != T.STRING:
        return
    rows = embedding.shape[-2] if len(embedding.shape) > 1 else 1
    if tokens.count <= rows:
        return
    d.notes.append(f"{tokens.count - rows} tokens beyond the {rows} rows of token_embd.weight are left out")
    for key in ("tokens", "scores", "token_type"):
        if (value := d.fields.get(f"tokenizer.ggml.{key}")) and value.item is not None and value.count == tokens.count:
            d.fields[f"tokenizer.ggml.{key}"] = cut(value, rows)


def cut(value: Field, count: int) -> Field:
    """The first `count` items of an array."""
    if value.item == T.STRING:
        size = sum(8 + len(text) for text in Strings(value.raw[12:], value.count).raw[:count])
    else:
        size = len(value.raw[12:]) // value.count * count
    return Field(
        value.type, value.item, count, memoryview(bytes(value.raw[:4]) + count.to_bytes(8, "little") + value.raw[12 : 12 + size])
    )


Rule = Callable[[Draft], None]
HYBRID: tuple[Rule, ...] = (only_the_language_model, one_head_count, four_sections, dt_is_a_bias)
RULES: Mapping[str, tuple[Rule, ...]] = {
    **dict.fromkeys(("qwen35", "qwen35moe", "qwen3next"), HYBRID),
    "gemma3": (only_the_language_model, gemma3_keys, as_many_tokens_as_rows),
    "mistral3": (only_the_language_model, mistral3_keys),
    "lfm2": (only_the_language_model, lfm2_sizes, the_last_norm),
}
assert set(RULES) | set(ALWAYS) <= set(ARCHITECTURES)
