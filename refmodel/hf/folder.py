"""A Hugging Face folder: its config and the tensors of its safetensors files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import FileError, MetadataError
from ..gguf.other_files import what_it_holds
from ..machine.boundary import from_json
from ..machine.files import contents
from ..machine.sha256 import sha256_of
from .safetensors import FolderTensor, once, read_safetensors

INDEX, CONFIG, WHOLE = "model.safetensors.index.json", "config.json", "model.safetensors"


OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".safetensors"}


LAYER_NUMBERS = {
    "attn_layer_indices",
    "cross_attention_layers",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "mlp_only_layers",
    "moe_layers",
}


# types of packed weights
PACKED = {"F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "I16", "I32", "U8", "U16", "U32"}


LAYER = re.compile(r"((?:.*?\.)?(?:layers|h)\.)(\d+)(?=\.|$)")  # the prefix and the number in a tensor's or module's name


ELSEWHERE = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|mtp|encoder)\.")  # towers and heads with layers of their own


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder: its path, its configuration, its safetensors files, and its tensors in the order of the files."""

    path: Path
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    tensors: Mapping[str, FolderTensor]

    @cached_property
    def homes(self) -> list[Mapping[str, Any]]:
        """The parts of the configuration that have the number of layers: its top, its text_config, or both.

        MetadataError if there is no such number, or more than one.
        """
        places = [home for home in (self.config, self.config.get("text_config")) if isinstance(home, dict)]
        found: list[Mapping[str, Any]] = [home for home in places if "num_hidden_layers" in home]
        said = [home["num_hidden_layers"] for home in found]
        if not said or said.count(said[0]) != len(said) or not isinstance(said[0], int):
            raise MetadataError(
                f"{self.path / CONFIG}: num_hidden_layers is {said or 'missing'}; expected one number; set it there"
            )
        return found

    @property
    def n_layer(self) -> int:
        """How many layers the trunk has."""
        return int(self.homes[0]["num_hidden_layers"])

    @cached_property
    def prefix(self) -> str:
        """The part of a tensor's name before the number of its layer, such as `model.language_model.layers.`

        FileError unless there is one prefix for all layers of the trunk.
        """
        found: dict[str, set[int]] = {}
        for name in self.tensors:
            if (match := LAYER.match(name)) and not ELSEWHERE.search(match[1]):
                found.setdefault(match[1], set()).add(int(match[2]))
        whole = [prefix for prefix, numbers in found.items() if numbers >= set(range(self.n_layer))]
        if len(whole) != 1:
            raise FileError(
                f"{self.path}: num_hidden_layers is {self.n_layer}; expected the tensors of as many layers under one prefix, found "
                f"{', '.join(f'{name} 0 to {max(numbers)}' for name, numbers in sorted(found.items())) or 'none'}; "
                "take a folder with one whole model, or correct the number"
            )
        return whole[0]

    @property
    def behind(self) -> int:
        """How many layers follow the trunk under the same prefix: multi-token prediction, as some models store it."""
        numbers = {int(match[2]) for name in self.tensors if (match := LAYER.match(name)) and match[1] == self.prefix}
        return max(numbers) + 1 - self.n_layer

    @cached_property
    def packed_by(self) -> str:
        """How the matrices of the layers are packed, in words: `quantized by gptq`, by awq, fp8, mlx; empty if they are floats.

        A few tensors of another type do not count.
        """
        kinds = sorted({t.type for name, t in self.tensors.items() if LAYER.match(name)} & PACKED)
        count = sum(t.type in kinds for name, t in self.tensors.items() if LAYER.match(name))
        if count < self.n_layer:
            return ""
        homes = [home for home in (self.config, self.config.get("text_config")) if isinstance(home, dict)]
        said = [
            home[key] for home in homes for key in ("quantization_config", "compression_config") if isinstance(home.get(key), dict)
        ]
        named = next((str(one["quant_method"]) for one in said if one.get("quant_method")), "")
        named = named or ("mlx" if any("quantization" in home for home in homes) else "")
        return f"quantized by {named[:60]}" if named else f"packed in {' and '.join(kinds)}"

    def sha256(self) -> dict[str, str]:
        """File name -> sha256, of the weights."""
        return {shard.name: sha256_of([shard]) for shard in self.shards}


def read_folder(path: Path) -> Folder:
    """Open a folder with config.json and safetensors files. FileError for what is missing or does not fit."""
    if not (path / CONFIG).exists() and (held := what_it_holds(path)):
        raise FileError(f"{path}: has no {CONFIG}; {held}")
    config = read_json(path / CONFIG)
    if (path / INDEX).exists():
        placed = read_json(path / INDEX).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(f, str) and Path(f).name == f for f in placed.values()):
            raise FileError(f"{path / INDEX}: expected a weight_map from tensors to files in the same folder; download it again")
        shards = [path / name for name in sorted(set(placed.values()))]
        if (path / WHOLE).exists() and path / WHOLE not in shards:
            raise FileError(
                f"{path}: has {WHOLE} and {INDEX}, of which transformers reads the first and others the second; "
                "remove the one that does not belong"
            )
    else:
        # as transformers and llama.cpp's converter choose: others, such as Mistral's consolidated.safetensors, hold the same again
        shards, placed = sorted(path.glob("model*.safetensors")) or sorted(path.glob("*.safetensors")), None
    if not shards:
        raise FileError(f"{path}: has no .safetensors files; {what_it_holds(path) or 'name a folder with such weights'}")
    tensors: dict[str, FolderTensor] = {}
    where: dict[str, str] = {}
    for shard in shards:
        for t in read_safetensors(shard):
            if t.name in tensors:
                raise FileError(
                    f"{shard}: tensor {t.name} is in {where[t.name]} too; expected it once; remove the file that does not belong"
                )
            tensors[t.name], where[t.name] = t, shard.name
    if placed is not None and placed != where:
        odd = sorted(name for name in placed.keys() | where.keys() if placed.get(name) != where.get(name))[0]
        raise FileError(
            f"{path / INDEX}: says {odd} is in {placed.get(odd, 'no file')}; "
            f"it is in {where.get(odd, 'no file')}; download the folder again"
        )
    return Folder(path, config, tuple(shards), tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file. FileError if it cannot be read, or is none."""
    value = from_json(contents(path), str(path), FileError, "expected a JSON object; check the file", once)
    if not isinstance(value, dict):
        raise FileError(f"{path}: is other JSON; expected an object; check the file")
    return value
