"""Typed look-ups in a file's metadata, which name the key, the file and the type when they fail."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf import GGUFValueType

from ..errors import MetadataError
from .format import SCALARS

# Within the class the short names are its methods.
Key: TypeAlias = str
Whole: TypeAlias = int
Real: TypeAlias = float
Flag: TypeAlias = bool
REQUIRED: Any = object()
INTEGERS = {t for t in SCALARS if SCALARS[t].kind in "iu"} - {GGUFValueType.BOOL}
FLOATS = {GGUFValueType.FLOAT32, GGUFValueType.FLOAT64}


@dataclass(frozen=True)
class Field:
    """One value, located and bounded but not decoded.

    type   its GGUF type; ARRAY with the type of its items
    item   the item type of an array, else None
    count  items of an array, else 1
    raw    the bytes of the value as the file has them; an array's begin with its item type and count
    """

    type: GGUFValueType
    item: GGUFValueType | None
    count: int
    raw: memoryview

    def value(self) -> Any:
        """int, float, bool or str; for arrays a NumPy array, a Strings, or a list of arrays."""
        if self.type == GGUFValueType.STRING:
            return str(self.raw[8:], "utf-8", "replace")
        if self.type != GGUFValueType.ARRAY:
            return scalar(self.type, self.raw)
        body = self.raw[12:]
        if self.item == GGUFValueType.STRING:
            return Strings(body, self.count)
        if self.item == GGUFValueType.ARRAY:
            return nested(body, self.count)
        array = np.frombuffer(body, SCALARS[GGUFValueType(self.item)])
        return array.astype(bool) if self.item == GGUFValueType.BOOL else array


def scalar(kind: GGUFValueType, raw: memoryview) -> int | float | bool:
    """The number or bool in the bytes of a scalar value."""
    value = np.frombuffer(raw, SCALARS[kind])[0].item()
    return bool(value) if kind == GGUFValueType.BOOL else value


def nested(body: memoryview, count: int) -> list[Any]:
    """The inner arrays of an array of `count` arrays; `body` begins with the first. The reader has checked every bound."""
    out, at = [], 0
    for _ in range(count):
        item, n, end = inner(body, at)
        out.append(Field(GGUFValueType.ARRAY, item, n, body[at:end]).value())
        at = end
    return out


def inner(body: memoryview, at: int) -> tuple[GGUFValueType, int, int]:
    """Item type, count and end of the array that begins at byte `at` of `body`."""
    item, n = GGUFValueType(int.from_bytes(body[at : at + 4], "little")), int.from_bytes(body[at + 4 : at + 12], "little")
    end = at + 12
    if item == GGUFValueType.STRING:
        for _ in range(n):
            end += 8 + int.from_bytes(body[end : end + 8], "little")
    elif item == GGUFValueType.ARRAY:
        for _ in range(n):
            end = inner(body, end)[2]
    else:
        end += n * SCALARS[item].itemsize
    return item, n, end


class Strings(Sequence[str]):
    """An array of strings, decoded when first asked for. Bytes that are not UTF-8 become U+FFFD; `raw` has them.

    body   the strings as the file has them: a length (u64), then the bytes, for each
    count  how many
    """

    def __init__(self, body: memoryview, count: int) -> None:
        self._body, self._count = body, count
        self._decoded: list[bytes] | None = None

    @property
    def raw(self) -> list[bytes]:
        """The bytes of each string."""
        if self._decoded is None:
            data, at, out = bytes(self._body), 0, []
            for _ in range(self._count):
                end = at + 8 + int.from_bytes(data[at : at + 8], "little")
                out.append(data[at + 8 : end])
                at = end
            self._decoded = out
        return self._decoded

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [text.decode("utf-8", "replace") for text in self.raw[index]]
        return self.raw[index].decode("utf-8", "replace")


class Metadata(Mapping[Key, Any]):
    """The key/value pairs of a file, in its order: a mapping from key to decoded value.

    path    of the file, for messages
    fields  key -> Field, not decoded; arrays are decoded when asked for

    The methods below read a value of a known type. Without a `default` the key is required. MetadataError if it is missing, or is
    of another type.
    """

    def __init__(self, path: Path, fields: Mapping[Key, Field]) -> None:
        self.path, self.fields = path, fields

    def __getitem__(self, key: Key) -> Any:
        return self.fields[key].value()

    def __iter__(self) -> Iterator[Key]:
        return iter(self.fields)

    def __len__(self) -> Whole:
        return len(self.fields)

    def __contains__(self, key: object) -> Flag:
        return key in self.fields

    def _field(self, key: Key) -> Field:
        if key not in self.fields:
            raise MetadataError(
                f"{self.path}: metadata key {key} is missing; this model needs it; convert the model anew, or add it with "
                "an editor of GGUF metadata"
            )
        return self.fields[key]

    def _wrong(self, key: Key, expected: Key) -> MetadataError:
        field = self.fields[key]
        found = f"an array of {field.count} {field.item.name}" if field.item is not None else field.type.name
        return MetadataError(
            f"{self.path}: metadata key {key} is {found}; expected {expected}; correct the key, or convert the model again"
        )

    def _scalar(self, key: Key, default: Any, types: set[GGUFValueType], expected: Key) -> Any:
        if key not in self.fields and default is not REQUIRED:
            return default
        field = self._field(key)
        if field.type not in types:
            raise self._wrong(key, expected)
        return field.value()

    def str(self, key: Key, default: Any = REQUIRED) -> Key:
        """A string, or the default if the key is missing. MetadataError for a value of another type."""
        return self._scalar(key, default, {GGUFValueType.STRING}, "a string")

    def int(self, key: Key, default: Any = REQUIRED) -> Whole:
        """A whole number of any width, or the default if the key is missing. MetadataError for a value of another type."""
        return self._scalar(key, default, INTEGERS, "an integer")

    def float(self, key: Key, default: Any = REQUIRED) -> Real:
        """A number stored as a float, or the default if the key is missing. MetadataError for a value of another type."""
        return self._scalar(key, default, FLOATS, "a float")

    def bool(self, key: Key, default: Any = REQUIRED) -> Flag:
        """A bool, or the default if the key is missing. MetadataError for a value of another type."""
        return self._scalar(key, default, {GGUFValueType.BOOL}, "a bool")

    def strings(self, key: Key) -> Strings:
        """A required array of strings. MetadataError if it is missing, or is of another type."""
        field = self._field(key)
        if field.item != GGUFValueType.STRING:
            raise self._wrong(key, "an array of strings")
        return field.value()

    def array(self, key: Key, types: set[GGUFValueType], expected: Key, length: Any = None) -> Any:
        """A required array of numbers, as NumPy has it.

        types     the item types that are accepted
        expected  what these are, for the message
        length    how many items it must have; None for any number

        MetadataError if it is missing, has other items, or another length.
        """
        field = self._field(key)
        if field.item not in types or length not in (None, field.count):
            raise self._wrong(key, expected if length is None else f"{expected} of length {length}")
        return field.value()

    def ints(self, key: Key, length: Any = None) -> tuple[Any, ...]:
        """A required array of whole numbers or bools, of `length` items if that is given. MetadataError otherwise."""
        return tuple(self.array(key, INTEGERS | {GGUFValueType.BOOL}, "an array of integers", length).tolist())

    def floats(self, key: Key, length: Any = None) -> tuple[Any, ...]:
        """A required array of floats, of `length` items if that is given. MetadataError otherwise."""
        return tuple(self.array(key, FLOATS, "an array of floats", length).tolist())

    def per_block(self, key: Key, count: Any, default: Any = REQUIRED) -> tuple[Any, ...]:
        """One integer (or bool) for each of `count` blocks: an array of exactly that length, or one number for all.

        MetadataError for an array of another length, another type, or a key that is missing and has no default.
        """
        if key not in self.fields and default is not REQUIRED:
            return (default,) * count
        if self._field(key).type == GGUFValueType.ARRAY:
            return self.ints(key, count)
        return (self._scalar(key, REQUIRED, INTEGERS | {GGUFValueType.BOOL}, "an integer, or an array of them"),) * count
