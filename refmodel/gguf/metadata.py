"""Typed look-ups in a file's metadata, which name the key, the file and the type when they fail.

One gate for numbers: each that is read has a type and a range, and what is outside of it goes no further. tests/test_house.py holds
that no module takes a number in another way.
"""

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
MOST = (1 << 31) - 1  # of a whole number where a reader states no other range
ANY = (-(1 << 63), (1 << 64) - 1)  # the range of what the reader checks itself, as an id that may be of no token
LARGEST = 1e30  # of the size of a float, likewise
CURE = "correct the key, or convert the model again"
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

    def refused(self, key: Key, found: Any, expected: Key) -> MetadataError:
        """The MetadataError for a value: where it is, what was found, what was expected, what to do. The caller raises it."""
        return MetadataError(f"{self.path}: {key} is {found}; {expected}: {CURE}")

    def within(self, key: Key, value: Any, least: Real, most: Real) -> Any:
        """The number itself if it is from `least` to `most`; MetadataError otherwise, and for NaN."""
        if not least <= value <= most:
            raise self.refused(
                key, value, "expected " + " to ".join(f"{n:g}" if isinstance(n, float) else f"{n}" for n in (least, most))
            )
        return value

    def int(self, key: Key, default: Any = REQUIRED, least: Whole = 0, most: Whole = MOST) -> Whole:
        """A whole number of any width, from `least` to `most`; the default, whatever it is, if the key is missing.

        MetadataError for a value of another type or out of the range.
        """
        value = self._scalar(key, default, INTEGERS, "an integer")
        return self.within(key, value, least, most) if key in self.fields else value

    def float(self, key: Key, default: Any = REQUIRED, least: Real = -LARGEST, most: Real = LARGEST) -> Real:
        """A finite number stored as a float, from `least` to `most`, or the default if the key is missing.

        MetadataError for a value of another type or out of the range.
        """
        value = self._scalar(key, default, FLOATS, "a float")
        return self.within(key, value, least, most) if key in self.fields else value

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

        MetadataError if it is missing, has other items, another length, or an item that is no number (NaN).
        """
        field = self._field(key)
        if field.item not in types or length not in (None, field.count):
            raise self._wrong(key, expected if length is None else f"{expected} of length {length}")
        values = field.value()
        if field.item in FLOATS and np.isnan(values).any():
            raise self.refused(key, f"an array of {field.count} floats, one of them NaN", "expected numbers")
        return values

    def ints(self, key: Key, length: Any = None, most: Whole = MOST) -> tuple[Any, ...]:
        """A required array of bools, or of whole numbers from 0 to `most`; of `length` items if that is given.

        MetadataError otherwise.
        """
        values = self.array(key, INTEGERS | {GGUFValueType.BOOL}, "an array of integers", length).tolist()
        return tuple(self.within(key, value, 0, most) for value in values)

    def per_block(self, key: Key, count: Any, default: Any = REQUIRED, most: Whole = MOST) -> tuple[Any, ...]:
        """One whole number from 0 to `most`, or bool, for each of `count` blocks: an array of that length, or one for all.

        MetadataError for an array of another length, another type or a number out of the range, or a key that is missing and has
        no default.
        """
        if key not in self.fields and default is not REQUIRED:
            return (default,) * count
        if self._field(key).type == GGUFValueType.ARRAY:
            return self.ints(key, count, most)
        value = self._scalar(key, REQUIRED, INTEGERS | {GGUFValueType.BOOL}, "an integer, or an array of them")
        return (self.within(key, value, 0, most),) * count
