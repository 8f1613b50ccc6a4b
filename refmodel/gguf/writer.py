"""Metadata and tensors -> a GGUF of version 3. Bytes of untouched tensors are copied, never re-encoded."""

import os
import struct
import tempfile
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from ..arrays import Bytes
from .format import ALIGNMENT, MAGIC, SCALARS
from .metadata import Field


class Packed(Protocol):
    """What can be written: a Tensor of a file, or one that makes its bytes when they are asked for."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> GGMLQuantizationType: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def data(self) -> Bytes: ...


def nbytes(t: Packed) -> int:
    """The size of its data, from type and shape alone."""
    weights, size = GGML_QUANT_SIZES[t.type]
    return prod(t.shape) // weights * size


def field(kind: GGUFValueType, value: Any, item: GGUFValueType | None = None) -> Field:
    """A new metadata value: a scalar, a string, or an array of scalars with their type."""
    if kind == GGUFValueType.STRING:
        text = value.encode()
        return Field(kind, None, 1, memoryview(struct.pack("<Q", len(text)) + text))
    if kind == GGUFValueType.ARRAY and item is not None:
        body = np.asarray(value).astype(SCALARS[item]).tobytes()
        return Field(kind, item, len(value), memoryview(struct.pack("<IQ", item, len(value)) + body))
    return Field(kind, None, 1, memoryview(np.asarray(value).astype(SCALARS[kind]).tobytes()))


def write(path: Path, fields: Mapping[str, Field], tensors: Iterable[Packed]) -> Path:
    """Write a file whole or not at all: under a temporary name beside it, synced, then renamed.

    fields   in order; general.alignment is honoured
    tensors  in order, under their names; `data` is copied as it is, and asked for one tensor at a time
    """
    listed = list(tensors)
    alignment = fields["general.alignment"].value() if "general.alignment" in fields else ALIGNMENT
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(MAGIC + struct.pack("<IQQ", 3, len(listed), len(fields)))
            for key, value in fields.items():
                out.write(text(key) + struct.pack("<I", value.type))
                out.write(value.raw)
            offset = 0
            for t in listed:
                out.write(text(t.name) + struct.pack(f"<I{len(t.shape)}Q", len(t.shape), *t.shape[::-1]))
                out.write(struct.pack("<IQ", t.type, offset))
                offset += -(-nbytes(t) // alignment) * alignment
            for t in listed:
                out.write(b"\0" * (-out.tell() % alignment))
                data = t.data
                assert data.size == nbytes(t), f"{t.name} has {data.size} bytes; its type and shape make {nbytes(t)}"
                copy(data, out)
                del data
            out.write(b"\0" * (-out.tell() % alignment))
            out.flush()
            os.fsync(out.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    return path


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def copy(data: Bytes, out: Any) -> None:
    """In pieces, so that no more than one is resident beside the page cache."""
    for start in range(0, data.size, 1 << 24):
        out.write(data[start : start + (1 << 24)].data)
