"""Path -> GgufFile: metadata and tensor directory over a memory map. Nothing is decoded, and nothing is believed.

Every count, length and offset is compared with the bytes that are really there before anything is made of it.
"""

import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import Bytes
from ..errors import FileError
from ..machine.files import State, check_regular, state_of
from ..machine.sha256 import sha256_of
from ..quants.types import SIZES, missing, tensor_type
from .cursor import Cursor, read_field
from .format import ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_DIMS, MAX_KEY, MAX_NAME, VERSIONS
from .metadata import ANY, Field, Metadata
from .other_files import BEGINNING, what_it_is
from .tensor import AnyTensor, Tensor

SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufFile:
    """A file, or a set of split files read as one, or a Hugging Face folder in the words of a GGUF.

    path      the path that was opened, of a set the first part
    version   of GGUF: 2 or 3; 0 for a folder
    metadata  key -> value; of a set that of the first part
    tensors   name -> tensor, in the order of the files
    parts     the files, in order
    beyond    fields of Hparams that a folder says and no key of a GGUF can, with their values
    remarks   what to know of a folder: what a GGUF made of it would lose
    draft     path of the file that holds its prediction block, if that is another one
    notes     what was renamed or left out since it was read, in words; see model/exports.py
    states    of each part when it was mapped, from machine.files.state_of; () for a folder
    """

    path: Path
    version: int
    metadata: Metadata
    tensors: Mapping[str, AnyTensor]
    parts: tuple[Path, ...]
    beyond: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    draft: Path | None = None
    notes: tuple[str, ...] = ()
    states: tuple[State, ...] = ()

    def check_unchanged(self) -> None:
        """FileError if a part is no longer the file that was mapped: it was replaced, written or cut."""
        for path, before in zip(self.parts, self.states):
            with path.open("rb") as f:
                if state_of(f.fileno()) != before:
                    raise FileError(
                        f"{path}: was changed or replaced while it was used; what was read of it may be of two files: run again"
                    )

    def sha256(self) -> str:
        """Hexadecimal digest over the bytes of all parts; computed on first use. FileError if a part is not what was mapped."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = sha256_of(self.parts)
        self.check_unchanged()
        return digest


@dataclass(frozen=True)
class TensorEntry:
    """One line of a tensor directory.

    shape   in NumPy's order
    offset  bytes from the start of the data section
    nbytes  bytes of the data
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_entry(cursor: Cursor) -> TensorEntry:
    """Read the next line of a tensor directory. FileError for a shape or a type that cannot be, or rows of broken blocks."""
    name = cursor.text("a tensor's name", MAX_NAME)
    n_dims = cursor.u32(f"the number of dimensions of {name}")
    if not 1 <= n_dims <= MAX_DIMS:
        cursor.fail(f"{name} has {n_dims} dimensions; expected 1 to {MAX_DIMS}")
    ne = [cursor.u64(f"the shape of {name}") for _ in range(n_dims)]
    number, offset = cursor.u32(f"the type of {name}"), cursor.u64(f"the offset of {name}")
    kind = tensor_type(number)
    if kind is None:
        raise FileError(f"{cursor.path}: {name} has tensor type {number}: {missing(number)}")
    weights, size = SIZES[number]
    if min(ne) < 1 or prod(ne) >= 1 << 63:
        cursor.fail(f"{name} has shape {ne[::-1]}; expected positive numbers whose product is below 2^63")
    if ne[0] % weights:
        raise FileError(
            f"{cursor.path}: {name} is {kind.name} with rows of {ne[0]}; {kind.name} needs a multiple of {weights}; convert the "
            "model again"
        )
    return TensorEntry(name, kind, tuple(ne[::-1]), offset, prod(ne) // weights * size)


def mapped(path: Path) -> Bytes:
    """The bytes of a file, read-only; the mapping lives as long as views of it. FileError if it is empty or cannot be opened."""
    return mapping(path)[0]


def mapping(path: Path) -> tuple[Bytes, State]:
    """The same, and the state of the file that was mapped."""
    check_regular(path)
    try:
        with path.open("rb") as f:
            if not (size := os.fstat(f.fileno()).st_size):
                raise FileError(f"{path}: the file is empty; expected a GGUF; give the path of a .gguf file")
            data = np.frombuffer(mmap.mmap(f.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
            return data, state_of(f.fileno())
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}; check the path and who may read it"
        ) from None


def read_part(path: Path) -> GgufFile:
    """One file only, whether or not it is a part of a set. FileError for anything that is not a GGUF that can be read."""
    data, state = mapping(path)
    cursor = Cursor(path, data.data)
    magic = bytes(cursor.take(4, "the magic"))
    if magic != MAGIC:
        head = bytes(data[:BEGINNING])
        raise FileError(f"{path}: starts with {magic!r}, not with {MAGIC!r}; this is not a GGUF, {what_it_is(head)}")
    version = cursor.u32("the version")
    if version and version & 0xFFFFFF == 0:
        raise FileError(
            f"{path}: is a big-endian GGUF (version {version >> 24} read backwards); only little-endian files are supported; "
            "convert the model again for a little-endian machine"
        )
    if version not in VERSIONS:
        raise FileError(
            f"{path}: is GGUF version {version}; versions {' and '.join(map(str, VERSIONS))} are supported; write it anew "
            "with a current converter"
        )
    n_tensors, n_fields = cursor.u64("the tensor count"), cursor.u64("the metadata count")
    cursor.claim("the header", n_tensors, "tensors", 33)  # the shortest entries: a name of one byte, one dimension
    cursor.claim("the header", n_fields, "metadata keys", 14)

    fields: dict[str, Field] = {}
    for _ in range(n_fields):
        key = cursor.text("a metadata key", MAX_KEY)
        if key in fields:
            cursor.fail(f"metadata key {key} stands twice")
        fields[key] = read_field(cursor, key)
    metadata = Metadata(path, fields)

    alignment = metadata.int("general.alignment", ALIGNMENT, *ANY)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise FileError(
            f"{path}: general.alignment is {alignment}; expected a power of two up to {MAX_ALIGNMENT}; the file is "
            "damaged: get it again"
        )
    entries = [read_entry(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    return GgufFile(path, version, metadata, placed(path, data, entries, start, alignment), (path,), states=(state,))


def placed(path: Path, data: Bytes, entries: list[TensorEntry], start: int, alignment: int) -> dict[str, Tensor]:
    """Tensors with their bytes, by name, in the order of the directory.

    start      byte where the data section begins
    alignment  of each tensor, in bytes

    FileError if a tensor is not aligned, is not inside the file, overlaps another, or is listed twice.
    """
    end, before, tensors = 0, "", dict[str, Tensor]()
    for e in sorted(entries, key=lambda e: e.offset):
        first = start + e.offset
        if e.offset % alignment:
            raise FileError(
                f"{path}: {e.name} starts at offset {e.offset}, which is not a multiple of {alignment}; the file is "
                "damaged: get it again"
            )
        if first + e.nbytes > data.size:
            raise FileError(
                f"{path}: {e.name} should end at byte {first + e.nbytes}, the file ends at {data.size}; was it downloaded whole? "
                "Get it again"
            )
        if first < end:
            raise FileError(
                f"{path}: {e.name} overlaps {before}: it starts at byte {first}, {before} ends at byte {end}; the file is "
                "damaged: get it again"
            )
        end, before = first + e.nbytes, e.name
    for e in entries:
        if e.name in tensors:
            raise FileError(f"{path}: tensor {e.name} is listed twice; expected once; convert the model again")
        tensors[e.name] = Tensor(e.name, e.type, e.shape, path, data[start + e.offset : start + e.offset + e.nbytes])
    return tensors


def read(path: str | Path) -> GgufFile:
    """Open a GGUF, or a split one by its first part (-00001-of-0000N.gguf, with the others in its folder).

    FileError names the file, what was found, what was expected and what to do. MetadataError for a key of the format that has
    another type.
    """
    first = read_part(Path(path))
    count = first.metadata.int("split.count", 1, *ANY)
    if count < 0:
        raise FileError(f"{path}: split.count is {count}; expected the number of parts; split the model anew")
    return first if count <= 1 else joined(first, count)


def joined(first: GgufFile, count: int) -> GgufFile:
    """A split file of `count` parts as one, from its first part. FileError if a part is missing or is of another model."""
    name = SPLIT_NAME.fullmatch(first.path.name)
    if not name or int(name[3]) != count:
        raise FileError(
            f"{first.path}: is one of {count} parts (split.count); parts are named NAME-00001-of-{count:05}.gguf; "
            "give each its name"
        )
    if first.metadata.int("split.no", 0) != 0:
        raise FileError(f"{first.path}: is not the first part; open {name[1]}-00001-of-{name[3]}.gguf")
    parts = [first]
    for i in range(1, count):
        path = first.path.with_name(f"{name[1]}-{i + 1:05}-of-{count:05}.gguf")
        if not path.exists():
            raise FileError(f"{path}: is missing, part {i + 1} of {count}; get all parts into one folder")
        part = read_part(path)
        number, total = part.metadata.int("split.no"), part.metadata.int("split.count", count)
        if number != i:
            raise FileError(f"{part.path}: split.no is {number}; expected {i}; were parts renamed? Give each its own name again")
        if total != count:
            raise FileError(
                f"{part.path}: split.count is {total}, in the first part it is {count}; these are not parts of one "
                "model: get all of one"
            )
        parts.append(part)
    tensors: dict[str, AnyTensor] = {}
    for part in parts:
        if again := tensors.keys() & part.tensors.keys():
            raise FileError(
                f"{part.path}: tensor {min(again)} is in an earlier part too; parts of two models are mixed: get all of one"
            )
        tensors |= part.tensors
    if (stated := first.metadata.int("split.tensors.count", len(tensors))) != len(tensors):
        raise FileError(
            f"{first.path}: split.tensors.count is {stated}, the {count} parts hold {len(tensors)}; get all parts of the "
            "same upload"
        )
    states = tuple(state for part in parts for state in part.states)
    return GgufFile(first.path, first.version, first.metadata, tensors, tuple(part.path for part in parts), states=states)
