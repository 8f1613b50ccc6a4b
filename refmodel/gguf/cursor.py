"""A cursor over the bytes of a GGUF: every count and offset is compared with what is really there before it is used."""

import struct
from pathlib import Path
from typing import NoReturn

from gguf import GGUFValueType

from ..errors import FileError
from .format import MAX_COUNT, MAX_DEPTH, SCALARS
from .metadata import Field


class Cursor:
    """A place in a mapped file that refuses to move past its end.

    path     of the file, for messages
    data     its bytes
    at       offset of the next byte
    allowed  what may still be claimed of each kind of format.MAX_COUNT
    """

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data, self.at = path, data, 0
        self.allowed = dict(MAX_COUNT)

    def fail(self, what: str) -> NoReturn:
        """FileError that names the file, the byte and `what` is wrong there."""
        raise FileError(f"{self.path}: {what} (at byte {self.at}); the file is damaged or was not downloaded whole: get it again")

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes, as a view, after a check that they are there; `what` names them in the FileError otherwise."""
        if count > len(self.data) - self.at:
            self.fail(f"{what} needs {count} bytes, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def claim(self, what: str, count: int, kind: str, size: int) -> int:
        """Check that `count` things of at least `size` bytes each fit into what is left, before any is read. Returns the count.

        what  who claims them, for messages
        kind  a key of format.MAX_COUNT, which bounds how many a file may have

        FileError if there are too few bytes left, or too many things.
        """
        left = len(self.data) - self.at
        if size * count > left:
            self.fail(f"{what} claims {count} {kind}, {left} bytes are left")
        if count > self.allowed[kind]:
            self.fail(f"{what} claims {count} {kind}; at most {MAX_COUNT[kind]} are read from a file")
        self.allowed[kind] -= count
        return count

    def u32(self, what: str) -> int:
        """The next 4 bytes as a whole number. FileError at the end of the file."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """The next 8 bytes as a whole number. FileError at the end of the file."""
        return int.from_bytes(self.take(8, what), "little")

    def text(self, what: str, most: int) -> str:
        """The next string: its length as a u64, then 1 to `most` bytes.

        FileError for another length, for bytes that are not UTF-8, and for characters that do not print.
        """
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
        """Move past `count` strings, checking each length; a tight loop, because a vocabulary is large.

        FileError if one is cut off.
        """
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
    """The next 4 bytes as the type of a metadata value. FileError for a number that is no type."""
    number = cursor.u32(f"the type of {what}")
    if number not in GGUFValueType.__members__.values():
        cursor.fail(f"{what} has the unknown value type {number}")
    return GGUFValueType(number)


def skip_array(cursor: Cursor, what: str, depth: int = 1) -> tuple[GGUFValueType, int]:
    """Move past an array; returns the type and count of its items. FileError if it is cut off, or nests too deep."""
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
    """Move past one metadata value, and return where it is and what it is, not decoded. FileError if it is cut off."""
    what = f"metadata key {key}"
    kind, start, item, count = value_type(cursor, what), cursor.at, None, 1
    if kind == GGUFValueType.ARRAY:
        item, count = skip_array(cursor, what)
    elif kind == GGUFValueType.STRING:
        cursor.skip_strings(1, what)
    else:
        cursor.take(SCALARS[kind].itemsize, what)
    return Field(kind, item, count, cursor.data[start : cursor.at])
