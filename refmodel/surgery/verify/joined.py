"""Several sources of one copy, joined to one: the blocks of the second follow those of the first, and so on.

What is not of a block must be the same in all of them, or a block of one would compute something else in the copy than it did.
Tensors and texts of the whole model are those of the source that the copy took them from.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType

from ...errors import MetadataError
from ...gguf.format import OURS
from ...gguf.metadata import Field, Metadata
from ...gguf.reader import GgufFile
from ...gguf.tensor import AnyTensor
from ...gguf.writer import field
from ...hf.by_place.llamacpp import COUNTED
from ...hf.by_place.model_types import model_type
from ...hf.folder import CONFIG, LAYER_NUMBERS, Folder, read_folder
from ...hf.safetensors import FolderTensor
from ...model.model import Model, load
from ...model.route import Route
from ..copy_map import block_of
from ..gguf import GLOBAL_PREFIXES, PER_BLOCK
from ..hf_config import PER_LAYER, facts_of
from .folder import dtype_of
from .meaning_folder import PLACE, by_default, said
from .meaning_gguf import by_default as by_default_in_gguf
from .meaning_gguf import same


@dataclass(frozen=True)
class Sources:
    """The sources of a copy.

    paths   of each
    counts  how many blocks the trunk of each has
    """

    paths: Sequence[Path]
    counts: Sequence[int]

    def place(self, block: int) -> tuple[int, int]:
        """The number of the source, and the number there, of a block of the joined model."""
        for number, count in enumerate(self.counts):
            if block < count:
                return number, block
            block -= count
        raise AssertionError("no source has this block")

    def names(self) -> list[str]:
        """A short name of each source; its path where two have the same name."""
        short = [path.name for path in self.paths]
        return short if len(set(short)) == len(short) else list(map(str, self.paths))

    def words(self, route: Route) -> str:
        """A route in words: runs of blocks, each with its source. `a 0..3, b 2..5`"""
        runs: list[tuple[int, int, int]] = []
        for number, block in map(self.place, route.layers):
            if runs and runs[-1][0] == number and runs[-1][2] == block - 1:
                runs[-1] = (number, runs[-1][1], block)
            else:
                runs.append((number, block, block))
        names = self.names()
        return ", ".join(f"{names[n]} {a}..{b}" if a != b else f"{names[n]} {a}" for n, a, b in runs)

    def legend(self) -> str:
        """Which numbers the blocks of each source have in messages."""
        at, parts = 0, []
        for name, count in zip(self.names(), self.counts, strict=True):
            parts.append(f"{at} to {at + count - 1} are those of {name}")
            at += count
        return "source blocks " + ", ".join(parts)


def joined_models(paths: Sequence[Path], copy: GgufFile) -> tuple[Model, Sources]:
    """GGUF files as one model. MetadataError where they differ in what is not of a block, or cannot be joined."""
    models = [load(path) for path in paths]
    first, sources = models[0], Sources(paths, [model.n_layer for model in models])
    if len(models) == 1:
        return first, sources
    arch, total, behind = first.architecture, sum(sources.counts), int(first.hp.n_nextn)
    check_models(models, copy)
    fields = {key: of_whole(key, models, copy) for key in first.file.metadata.fields if not key.startswith((OURS, "split."))}
    fields[f"{arch}.block_count"] = field(GGUFValueType.UINT32, total + behind)
    how = first.arch.FACTS.kinds
    for name in PER_BLOCK - ({how.listed} if how else set()):
        values = of_blocks(name, models)
        if len(set(values)) > 1:
            kind = GGUFValueType.BOOL if isinstance(values[0], bool) else GGUFValueType.UINT32
            fields[f"{arch}.{name}"] = field(GGUFValueType.ARRAY, values, kind)
    if how:
        kinds = [kind == how.kind for model in models for kind in model.kinds] + [False] * behind
        fields[f"{arch}.{how.listed}"] = field(GGUFValueType.ARRAY, kinds, GGUFValueType.BOOL)
    parts = tuple(part for model in models for part in model.file.parts)
    tensors = joined_tensors([model.file.tensors for model in models], sources.counts, "blk.", copy.tensors)
    return Model(GgufFile(first.path, first.file.version, Metadata(first.path, fields), tensors, parts)), sources


def check_models(models: Sequence[Model], copy: GgufFile) -> None:
    """MetadataError unless the models differ only in their blocks, their texts and their descriptions."""
    first = models[0]
    for model in models[1:]:
        if model.architecture != first.architecture:
            raise MetadataError(
                f"{model.path}: is a {model.architecture}, {first.path} a {first.architecture}; "
                "no copy has blocks of both; name one source"
            )
        arch = model.architecture
        free = {f"{arch}.{name}" for name in (*PER_BLOCK, "block_count", "nextn_predict_layers", "context_length")}
        a, b = first.file.metadata.fields, model.file.metadata.fields
        for key in sorted(a.keys() | b.keys()):
            if key.startswith(f"{arch}.") and key not in free and not agree(key, first, model):
                raise MetadataError(
                    f"{model.path}: {key} is not that of {first.path}, so that no copy computes blocks of both; name one"
                )
    fact, counts = COUNTED.get(first.architecture), [model.n_layer for model in models]
    if fact and any(count in fact for count in (*counts, sum(counts))):
        raise MetadataError(
            f"{first.path}: {first.architecture} is known by its number of blocks: {fact.what}; "
            "it cannot be joined; name one source"
        )


def agree(key: str, one: Model, other: Model) -> bool:
    """Whether two models say the same by a key: the same value, or what holds without it."""
    a, b = (model.file.metadata.fields.get(key) for model in (one, other))
    if a is not None and b is not None and same(a, b):
        return True
    return all(value is None or by_default_in_gguf(key, value, model) for value, model in ((a, one), (b, other)))


def of_whole(key: str, models: Sequence[Model], copy: GgufFile) -> Field:
    """A value that is not of a block: that of the source whose value the copy has, or else the first's."""
    found = [model.file.metadata.fields[key] for model in models if key in model.file.metadata.fields]
    taken = key.startswith(GLOBAL_PREFIXES) and key in copy.metadata.fields
    return next((value for value in found if taken and same(value, copy.metadata.fields[key])), found[0])


def of_blocks(name: str, models: Sequence[Model]) -> list[Any]:
    """A value for each block of all trunks, then for the prediction blocks of the first model; empty if no model says it."""
    key = f"{models[0].architecture}.{name}"
    trunk: list[Any] = []
    behind: list[Any] = []
    if not any(key in model.file.metadata for model in models):
        return []
    for model in models:
        default = model.hp.n_head if name == "attention.head_count_kv" else 0
        values = model.file.metadata.per_block(key, model.n_layer + int(model.hp.n_nextn), default)
        trunk += values[: model.n_layer]
        behind = behind or list(values[model.n_layer :])
    return [*trunk, *behind]


def joined_tensors(
    held: Sequence[Mapping[str, Any]], counts: Sequence[int], prefix: str, copy: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors of all sources, those of blocks with the joined numbers.

    Of the whole model, and of the blocks behind the trunk, those that the copy took.
    """
    out: dict[str, Any] = {}
    last = blocks(copy, prefix)
    for number, tensors in enumerate(held):
        before, ends = sum(counts[:number]), blocks(tensors, prefix)
        for name, t in tensors.items():
            new = there = name  # in the joined model, and in the copy
            if (block := block_of(name, prefix)) is not None:
                own, trunk = name.removeprefix(f"{prefix}{block}"), block < counts[number]
                new = f"{prefix}{before + block if trunk else sum(counts) + block - counts[number]}{own}"
                there = "" if trunk else f"{prefix}{last - ends + block}{own}"
                if number and not trunk and new not in out:
                    continue  # the first source says how many there are
            if new not in out or (there in copy and equal(t, copy[there]) and not equal(out[new], copy[there])):
                out[new] = replace(t, name=new)
    return out


def blocks(tensors: Iterable[str], prefix: str) -> int:
    """How many blocks there are, by the names of tensors."""
    return max((block + 1 for name in tensors if (block := block_of(name, prefix)) is not None), default=0)


def equal(a: AnyTensor | FolderTensor, b: AnyTensor | FolderTensor) -> bool:
    """Whether two tensors have one type, shape and bytes."""
    return a.type == b.type and a.shape == b.shape and np.array_equal(a.data, b.data)


def joined_folders(paths: Sequence[Path], copy: Folder) -> tuple[Folder, Sources]:
    """Folders as one. MetadataError where their configurations differ in what is not of a layer, or cannot be joined."""
    folders = [read_folder(path) for path in paths]
    first, sources = folders[0], Sources(paths, [folder.n_layer for folder in folders])
    total = sum(sources.counts)
    if len(folders) == 1:
        return first, sources
    if odd := next((folder for folder in folders if folder.prefix != first.prefix), None):
        raise MetadataError(
            f"{odd.path}: its tensors are named {odd.prefix}, those of {first.path} {first.prefix}; rename those of one"
        )
    check_configs(folders)
    homes = [dict(folder.homes[-1]) for folder in folders]
    home = homes[0] | {"num_hidden_layers": total}
    for fact in facts_of(first):
        values = [value for folder in folders for value in fact.read(folder.homes[-1], folder.n_layer)]
        home |= fact.write(home, values)
        if fact.read(home, total) != values:
            raise MetadataError(
                f"{first.path / CONFIG}: {fact.name} says what a layer is by its place, "
                "which cannot be said of layers of several sources; name one source"
            )
    for key in homes[0].keys() & (PER_LAYER | LAYER_NUMBERS):
        if not any(fact.name == key for fact in facts_of(first)) and isinstance(homes[0][key], list):
            home[key] = listed(key, homes, sources.counts)
    config = home if first.homes[-1] is first.config else dict(first.config) | {"text_config": home}
    if "num_hidden_layers" in config:
        config["num_hidden_layers"] = total
    tensors = joined_tensors([folder.tensors for folder in folders], sources.counts, first.prefix, copy.tensors)
    shards = tuple(shard for folder in folders for shard in folder.shards)
    return Folder(first.path, config, shards, tensors), sources


def listed(key: str, homes: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> list[Any]:
    """A list of all layers' values, or of the numbers of some layers, of all sources."""
    if key in PER_LAYER:
        return [value for home in homes for value in home[key]]
    return [sum(counts[:number]) + layer for number, home in enumerate(homes) for layer in home.get(key) or []]


def check_configs(folders: Sequence[Folder]) -> None:
    """MetadataError unless the configurations differ only in their layers and in the tokens that begin and end a text."""
    first = folders[0]
    name = model_type(first.config, first.homes[-1])
    of_layers = {fact.name for fact in facts_of(first)} | {key for fact in facts_of(first) for key in fact.keys}
    of_layers |= PER_LAYER | LAYER_NUMBERS | {"num_hidden_layers", "max_position_embeddings", "bos_token_id", "eos_token_id"}
    right = spoken(first, name)
    for folder in folders[1:]:
        found = spoken(folder, name)
        nameless = not any(key.startswith("architectures") for key in found) or "architectures" not in first.config
        for key in sorted(right.keys() | found.keys()):
            own = re.sub(PLACE, "", key).rpartition(".")[2]
            if own in of_layers or (nameless and own == "architectures"):
                continue
            if key in right and key in found and right[key] == found[key]:
                continue
            others = ((right, folder), (found, first))  # what one says holds for the other without it
            if all(key not in part or by_default(key, part[key], name, other.homes[-1]) for part, other in others):
                continue
            raise MetadataError(
                f"{folder.path / CONFIG}: {key} is {found.get(key)!r}, in {first.path} {right.get(key)!r}; no copy computes "
                "layers of both; name one source"
            )


def spoken(folder: Folder, name: str) -> dict[str, Any]:
    """What a configuration says, with the dtype that holds where it says none."""
    return {"dtype": dtype_of(folder)} | said(folder.config, name, folder.homes[-1])
