"""Path -> GgufFile: metadata and tensor directory over a memory map. Nothing is decoded, and nothing is believed.

Every count, length and offset is compared with the bytes that are really there before anything is made of it.
"""

import mmap
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ..arrays import Bytes
from ..errors import FileError
from ..machine.sha256 import sha256_of
from ..quants.types import SIZES, missing, tensor_type
from .format import ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_COUNT, MAX_DEPTH, MAX_DIMS, MAX_KEY, MAX_NAME, SCALARS, VERSIONS
from .metadata import Field, Metadata

SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a file.

    shape  in NumPy's order, the reverse of ggml's: a matrix is (rows, columns), a row contiguous
    data   the packed bytes, a read-only view of the file's mapping
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    file: Path
    data: Bytes

    @property
    def rows(self) -> Bytes:
        """The packed rows [product of all axes but the last, bytes of a row]; read-only, no copy."""
        return self.data.reshape(prod(self.shape[:-1]), -1)


@dataclass(frozen=True)
class GgufFile:
    """A file, or a set of split files read as one.

    parts    the files, in order
    tensors  name -> Tensor, in the order of the files
    """

    path: Path
    version: int
    metadata: Metadata
    tensors: Mapping[str, Tensor]
    parts: tuple[Path, ...]

    def sha256(self) -> str:
        """Hexadecimal digest over the bytes of all parts."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return sha256_of(self.parts)


class Cursor:
    """A place in a mapped file that refuses to move past its end."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data, self.at = path, data, 0
        self.allowed = dict(MAX_COUNT)

    def fail(self, what: str) -> NoReturn:
        raise FileError(f"{self.path}: {what} (at byte {self.at}); the file is damaged or was not downloaded whole")

    def take(self, count: int, what: str) -> memoryview:
        if count > len(self.data) - self.at:
            self.fail(f"{what} needs {count} bytes, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def claim(self, what: str, count: int, kind: str, size: int) -> int:
        """Take note of `count` things of at least `size` bytes each, before any is looked at. Returns the count."""
        left = len(self.data) - self.at
        if size * count > left:
            self.fail(f"{what} claims {count} {kind}, {left} bytes are left")
        if count > self.allowed[kind]:
            self.fail(f"{what} claims {count} {kind}; at most {MAX_COUNT[kind]} are read from a file")
        self.allowed[kind] -= count
        return count

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def text(self, what: str, most: int) -> str:
        length = self.u64(f"the length of {what}")
        if not 1 <= length <= most:
            self.fail(f"{what} is {length} bytes long; at least 1 and at most {most} are allowed")
        try:
            text = str(self.take(length, what), "utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")
        if not text.isprintable():  # it would break every message that names it
            self.fail(f"{what} has control characters")
        return text

    def skip_strings(self, count: int, what: str) -> None:
        """Move past strings, checking each length: the walk over a large vocabulary, so it is a tight loop."""
        self.claim(what, count, "strings", 8)
        length_at, data, at, end = struct.Struct("<Q").unpack_from, self.data, self.at, len(self.data) - 8
        for _ in range(count):
            if at > end:
                self.fail(f"{what} is cut off")
            at += 8 + length_at(data, at)[0]
        if at > len(data):
            self.fail(f"{what} is cut off")
        self.at = at


def value_type(cursor: Cursor, what: str) -> GGUFValueType:
    number = cursor.u32(f"the type of {what}")
    if number not in GGUFValueType.__members__.values():
        cursor.fail(f"{what} has the unknown value type {number}")
    return GGUFValueType(number)


def skip_array(cursor: Cursor, what: str, depth: int = 1) -> tuple[GGUFValueType, int]:
    """Move past an array; returns the type and count of its items."""
    item, count = value_type(cursor, what), cursor.u64(f"the length of {what}")
    if item == GGUFValueType.STRING:
        cursor.skip_strings(count, what)
    elif item == GGUFValueType.ARRAY:
        if depth >= MAX_DEPTH:
            cursor.fail(f"{what} nests arrays more than {MAX_DEPTH} deep")
        for _ in range(cursor.claim(what, count, "arrays", 12)):
            skip_array(cursor, what, depth + 1)
    else:
        cursor.take(count * SCALARS[item].itemsize, what)
    return item, count


def read_field(cursor: Cursor, key: str) -> Field:
    what = f"metadata key {key}"
    kind, start, item, count = value_type(cursor, what), cursor.at, None, 1
    if kind == GGUFValueType.ARRAY:
        item, count = skip_array(cursor, what)
    elif kind == GGUFValueType.STRING:
        cursor.skip_strings(1, what)
    else:
        cursor.take(SCALARS[kind].itemsize, what)
    return Field(kind, item, count, cursor.data[start : cursor.at])


@dataclass(frozen=True)
class Entry:
    """One line of a tensor directory: `offset` counts from the start of the data section."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_entry(cursor: Cursor) -> Entry:
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
        cursor.fail(f"{name} has shape {ne[::-1]}")
    if ne[0] % weights:
        raise FileError(f"{cursor.path}: {name} is {kind.name} with rows of {ne[0]}; {kind.name} needs a multiple of {weights}")
    return Entry(name, kind, tuple(ne[::-1]), offset, prod(ne) // weights * size)


def mapped(path: Path) -> Bytes:
    """The bytes of a file, read-only; the mapping lives as long as views of it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise FileError(f"{path}: cannot be opened: it is not a regular file; expected a GGUF; give the path of a .gguf file")
        with path.open("rb") as f:
            if not (size := os.fstat(f.fileno()).st_size):
                raise FileError(f"{path}: the file is empty; expected a GGUF; give the path of a .gguf file")
            return np.frombuffer(mmap.mmap(f.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def read_part(path: Path) -> GgufFile:
    """One file by itself."""
    data = mapped(path)
    cursor = Cursor(path, data.data)
    magic = bytes(cursor.take(4, "the magic"))
    if magic != MAGIC:
        raise FileError(
            f"{path}: starts with {magic!r}, not with {MAGIC!r}; this is not a GGUF: convert the model, or give another file"
        )
    version = cursor.u32("the version")
    if version and version & 0xFFFFFF == 0:
        raise FileError(
            f"{path}: is a big-endian GGUF (version {version >> 24} read backwards); only little-endian files are supported"
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

    alignment = metadata.int("general.alignment", ALIGNMENT)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise FileError(
            f"{path}: general.alignment is {alignment}; expected a power of two up to {MAX_ALIGNMENT}; the file is "
            "damaged: get it again"
        )
    entries = [read_entry(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    return GgufFile(path, version, metadata, placed(path, data, entries, start, alignment), (path,))


def placed(path: Path, data: Bytes, entries: list[Entry], start: int, alignment: int) -> dict[str, Tensor]:
    """Tensors with their bytes, after the checks that need the whole directory: inside the file, aligned, apart, once each."""
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
                f"{path}: {e.name} should end at byte {first + e.nbytes}, the file ends at {data.size}; was it downloaded whole?"
            )
        if first < end:
            raise FileError(
                f"{path}: {e.name} overlaps {before}: it starts at byte {first}, {before} ends at byte {end}; the file is "
                "damaged: get it again"
            )
        end, before = first + e.nbytes, e.name
    for e in entries:
        if e.name in tensors:
            raise FileError(f"{path}: tensor {e.name} is listed twice; whoever wrote the file has to remove one")
        tensors[e.name] = Tensor(e.name, e.type, e.shape, path, data[start + e.offset : start + e.offset + e.nbytes])
    return tensors


def read(path: str | Path) -> GgufFile:
    """Open a GGUF, or a split one by its first part (-00001-of-0000N.gguf, the others beside it).

    Raises FileError, which names the file, what was found and what was expected.
    """
    first = read_part(Path(path))
    count = first.metadata.int("split.count", 1)
    if count < 0:
        raise FileError(f"{path}: split.count is {count}; expected the number of parts; split the model anew")
    return first if count <= 1 else joined(first, count)


def joined(first: GgufFile, count: int) -> GgufFile:
    """The parts of a split file as one."""
    name = SPLIT_NAME.fullmatch(first.path.name)
    if not name or int(name[3]) != count:
        raise FileError(f"{first.path}: is one of {count} parts (split.count); parts are named NAME-00001-of-{count:05}.gguf")
    if first.metadata.int("split.no", 0) != 0:
        raise FileError(f"{first.path}: is not the first part; open {name[1]}-00001-of-{name[3]}.gguf")
    parts = [first]
    for i in range(1, count):
        part = read_part(first.path.with_name(f"{name[1]}-{i + 1:05}-of-{count:05}.gguf"))
        number, total = part.metadata.int("split.no"), part.metadata.int("split.count", count)
        if number != i:
            raise FileError(f"{part.path}: split.no is {number}; expected {i}; were parts renamed? Give each its own name again")
        if total != count:
            raise FileError(
                f"{part.path}: split.count is {total}, in the first part it is {count}; these are not parts of one model"
            )
        parts.append(part)
    tensors: dict[str, Tensor] = {}
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
    return GgufFile(first.path, first.version, first.metadata, tensors, tuple(part.path for part in parts))
