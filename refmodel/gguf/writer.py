"""Metadata and tensors -> a GGUF of version 3. Bytes of untouched tensors are copied, never re-encoded."""

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ..arrays import Bytes
from ..errors import FileError
from ..machine.files import check_target, synced, whole
from ..quants.types import SIZES
from .format import ALIGNMENT, MAGIC, SCALARS
from .metadata import Field

T = TypeVar("T")


class Packed(Protocol):
    """What can be written: a Tensor of a file, or one that makes its bytes when they are asked for."""

    @property
    def name(self) -> str:
        """The tensor's name in the new file."""
        ...

    @property
    def type(self) -> GGMLQuantizationType:
        """Its tensor type."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """In NumPy's order: (rows, columns)."""
        ...

    @property
    def data(self) -> Bytes:
        """The packed bytes, [nbytes]."""
        ...


@dataclass(frozen=True)
class Limit:
    """What a part of a split file holds at most.

    size     bytes of tensors; a larger tensor has a part of its own
    tensors  number of tensors
    """

    size: float = inf
    tensors: float = inf

    @classmethod
    def of(cls, size: str, tensors: int) -> "Limit":
        """A limit from words such as 500M or 4G (decimal, as llama-gguf-split has them), and from a number of tensors.

        An empty size and 0 tensors are no limit. FileError for other words.
        """
        match = re.fullmatch(r"(\d{1,15})([KMG]?)", size.strip().upper()) if size else None
        if size and (not match or not int(match[1])):
            raise FileError(f"--split-max-size {size}: expected a number of bytes such as 500M or 4G; give one, or leave it out")
        scale = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
        return cls(int(match[1]) * scale[match[2]] if match else inf, tensors or inf)


NO_LIMIT = Limit()
PIECE = 1 << 24


def nbytes(t: Packed) -> int:
    """The bytes of a tensor's data, from its type and shape."""
    weights, size = SIZES[t.type]
    return prod(t.shape) // weights * size


def field(kind: GGUFValueType, value: Any, item: GGUFValueType | None = None) -> Field:
    """A new metadata value: a scalar, a string, or an array of scalars or strings whose type is `item`."""
    if kind == GGUFValueType.STRING:
        return Field(kind, None, 1, memoryview(text(value)))
    if kind == GGUFValueType.ARRAY and item == GGUFValueType.STRING:
        strings = b"".join(text(string) for string in value)
        return Field(kind, item, len(value), memoryview(struct.pack("<IQ", item, len(value)) + strings))
    if kind == GGUFValueType.ARRAY and item is not None:
        body = np.asarray(value).astype(SCALARS[item]).tobytes()
        return Field(kind, item, len(value), memoryview(struct.pack("<IQ", item, len(value)) + body))
    return Field(kind, None, 1, memoryview(np.asarray(value).astype(SCALARS[kind]).tobytes()))


def write(
    path: Path,
    fields: Mapping[str, Field],
    tensors: Iterable[Packed],
    late: Callable[[], Mapping[str, Field]] = dict,
    limit: Limit = NO_LIMIT,
    sources: Iterable[Path] = (),
    seen: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write a file, or the parts of a split one, whole or not at all. Returns the path that opens it: its own, or the first part's.

    path     of the file; a set is written to NAME-00001-of-0000N.gguf and so on
    fields   in order; general.alignment is honoured
    tensors  in order, under their names; `data` is copied as it is, and asked for one tensor at a time
    late     fields that are known only when all is copied; each has the size that its placeholder has in `fields`
    limit    of a part; what needs only one part is written to `path` itself
    sources  files that must not be replaced: those that hold these tensors
    seen     called with how many bytes were copied, for a progress bar

    FileError if a file cannot be written, or is a source.
    """
    listed = list(tensors)
    groups = parted(listed, limit, nbytes)
    paths = part_names(path, len(groups))
    for target in paths:
        check_target(target, sources)
    headers = [part_fields(fields, i, len(groups), len(listed)) for i in range(len(groups))]
    with whole(paths) as files:
        for file, header, group in zip(files, headers, groups, strict=True):
            write_part(file, header, group, seen)
        for file in files:
            synced(file)  # while what is known late is still computed
        if known := late():
            before = files[0].seek(0) or len(head(headers[0], groups[0]))
            files[0].write(after := head(headers[0] | dict(known), groups[0]))
            assert len(after) == before, "a late field has another size than its placeholder"
    return paths[0]


def parted(tensors: Iterable[T], limit: Limit, size: Callable[[T], int]) -> list[list[T]]:
    """Tensors in order, in as few parts as the limit allows; a tensor is never cut. `size` gives the bytes of one."""
    parts: list[list[T]] = [[]]
    held = 0
    for t in tensors:
        if parts[-1] and (held + size(t) > limit.size or len(parts[-1]) >= limit.tensors):
            parts.append([])
            held = 0
        parts[-1].append(t)
        held += size(t)
    return parts


def part_names(path: Path, count: int) -> list[Path]:
    """The path itself for one part, else NAME-00001-of-0000N.gguf and so on in its folder."""
    stem = path.name.removesuffix(".gguf")
    return [path] if count == 1 else [path.with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def part_fields(fields: Mapping[str, Field], index: int, count: int, n_tensors: int) -> dict[str, Field]:
    """The fields of part `index` (0 the first) of `count`: all in the first, in the others what is needed to read them.

    n_tensors  tensors of all parts

    Source: tools/gguf-split of llama.cpp.
    """
    if count == 1:
        return dict(fields)
    shared = {key: value for key, value in fields.items() if index == 0 or key == "general.alignment"}
    return shared | {
        "split.no": field(GGUFValueType.UINT16, index),
        "split.count": field(GGUFValueType.UINT16, count),
        "split.tensors.count": field(GGUFValueType.INT32, n_tensors),
    }


def alignment_of(fields: Mapping[str, Field]) -> int:
    """Bytes that each tensor is aligned to: general.alignment, or 32."""
    return int(fields["general.alignment"].value()) if "general.alignment" in fields else ALIGNMENT


def head(fields: Mapping[str, Field], tensors: Sequence[Packed]) -> bytes:
    """All bytes before the data: counts, fields, tensor directory, padding."""
    alignment, offset, out = alignment_of(fields), 0, bytearray()
    out += MAGIC + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, value in fields.items():
        out += text(key) + struct.pack("<I", value.type) + value.raw
    for t in tensors:
        out += text(t.name) + struct.pack(f"<I{len(t.shape)}Q", len(t.shape), *t.shape[::-1])
        out += struct.pack("<IQ", t.type, offset)
        offset += padded(nbytes(t), alignment)
    return bytes(out) + bytes(-len(out) % alignment)


def write_part(out: BinaryIO, fields: Mapping[str, Field], tensors: Sequence[Packed], seen: Callable[[int], None]) -> None:
    """Write one file: its head, then each tensor's data, padded. `seen` is called with how many bytes were copied."""
    alignment = alignment_of(fields)
    out.write(head(fields, tensors))
    for t in tensors:
        data = t.data
        assert data.size == nbytes(t), f"{t.name} has {data.size} bytes; its type and shape make {nbytes(t)}"
        copy(data, out, seen)
        out.write(bytes(-data.size % alignment))
        del data


def padded(size: int, alignment: int) -> int:
    """The size rounded up to a multiple of the alignment, both in bytes."""
    return -(-size // alignment) * alignment


def text(value: str) -> bytes:
    """A string as GGUF has it: its length in bytes as a u64, then UTF-8."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def copy(data: Bytes, out: BinaryIO, seen: Callable[[int], None]) -> None:
    """Copy bytes in pieces, so that only one piece at a time is in memory."""
    for start in range(0, data.size, PIECE):
        piece = data[start : start + PIECE]
        out.write(piece.data)
        seen(piece.size)
