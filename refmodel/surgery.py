"""(GgufFile, Route) -> a GGUF in which the route's blocks stand one behind another, with metadata that says so."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from .arch.keys import MAX_BLOCKS
from .arrays import Bytes
from .errors import FileError, MetadataError, RouteError
from .gguf.metadata import Field
from .gguf.reader import GgufFile, Tensor
from .gguf.writer import field, write
from .model import Model
from .quants import dequantize
from .route import Route

# Keys below general.architecture that may hold one value for each block.
PER_BLOCK = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.recurrent_layers",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
}
HYBRID = {"qwen35"}  # architectures whose blocks have kinds that the file must list


def routed(model: Model, route: Route, out: Path) -> Path:
    """Write the file that a runtime without routes needs to compute the route.

    Tensors are copied byte for byte, blocks renumbered, per-block metadata follows its block, prediction (nextn) blocks
    stay last. Raises RouteError for what llama.cpp cannot run, MetadataError for a per-block array of unknown meaning
    or wrong length, FileError for a copy that would replace its source.
    """
    check_kinds(model, route)
    blocks = [*route.layers, *range(model.n_layer, model.n_layer + model.hp.n_nextn)]
    if len(blocks) > MAX_BLOCKS:
        raise RouteError(f"route {route.canonical[:80]} makes a file of {len(blocks)} blocks; llama.cpp loads at most {MAX_BLOCKS}")
    check_apart(model.file, out)
    return write(out, dict(routed_fields(model, route, blocks)), routed_tensors(model.file, blocks))


def check_kinds(model: Model, route: Route) -> None:
    kinds = {model.kinds[layer] for layer in route.layers}
    if model.architecture in HYBRID and len(kinds) == 1:
        raise RouteError(
            f"route {route.canonical} keeps only {kinds.pop()} blocks: llama.cpp aborts on a hybrid model with one kind of block, "
            "so there is nothing to compare with; the route itself runs here"
        )


def check_apart(file: GgufFile, out: Path) -> None:
    if out.resolve() in {part.resolve() for part in file.parts}:
        raise FileError(f"{out}: is the file being copied; give the copy another name")


def routed_tensors(file: GgufFile, blocks: list[int]) -> Iterator[Tensor]:
    """The global tensors, then those of each block under its new number."""
    for name, tensor in file.tensors.items():
        if not name.startswith("blk."):
            yield tensor
    for position, source in enumerate(blocks):
        prefix = f"blk.{source}."
        for name, tensor in file.tensors.items():
            if name.startswith(prefix):
                yield replace(tensor, name=f"blk.{position}.{name.removeprefix(prefix)}")


def routed_fields(model: Model, route: Route, blocks: list[int]) -> Iterator[tuple[str, Field]]:
    """Every key of the source, per-block arrays remapped, then the kinds of blocks and where the file comes from."""
    arch, md, n_all = model.architecture, model.file.metadata, model.n_layer + model.hp.n_nextn
    listed = f"{arch}.attention.recurrent_layers"
    for key, value in md.fields.items():
        if key == f"{arch}.block_count":
            yield key, field(GGUFValueType.UINT32, len(blocks))
        elif key.startswith("split.") or key == listed:
            continue
        elif key.removeprefix(f"{arch}.") in PER_BLOCK and value.item is not None and value.count != n_all:
            raise MetadataError(f"{md.path}: {key} has {value.count} values; expected {n_all}, one for each block")
        elif key.startswith(f"{arch}.") and value.item is not None and value.count == n_all:
            if key.removeprefix(f"{arch}.") not in PER_BLOCK and not key.endswith("dimension_sections"):
                raise MetadataError(f"{md.path}: {key} has one value for each of {n_all} blocks, but its meaning is not known here")
            array = np.asarray(value.value())
            keep = key.endswith("dimension_sections")
            yield key, value if keep else field(GGUFValueType.ARRAY, array[blocks], value.item)
        else:
            yield key, value
    if arch in HYBRID:
        yield listed, field(GGUFValueType.ARRAY, [model.hp.recurrent[b] for b in blocks], GGUFValueType.BOOL)
    yield "refmodel.route", field(GGUFValueType.STRING, route.canonical)
    yield "refmodel.source.sha256", field(GGUFValueType.STRING, model.file.sha256())
    yield "refmodel.map", field(GGUFValueType.ARRAY, list(route.layers), GGUFValueType.UINT32)


def dequantized(file: GgufFile, out: Path) -> Path:
    """The same model with every tensor as F32: what a quantized file means, for a runtime that would round activations."""
    check_apart(file, out)
    fields = {key: value for key, value in file.metadata.fields.items() if not key.startswith("split.")}
    return write(out, fields, map(AsF32, file.tensors.values()))


@dataclass(frozen=True)
class AsF32:
    """A tensor of the file as F32; decoded when its bytes are asked for, and not kept."""

    source: Tensor
    type: GGMLQuantizationType = GGMLQuantizationType.F32

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def data(self) -> Bytes:
        return dequantize(self.source.type, self.source.rows).reshape(-1).view(np.uint8)
