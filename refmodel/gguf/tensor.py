"""A tensor of a file, or one that is made of others."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

from gguf import GGMLQuantizationType

from ..arrays import Bytes


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a file.

    name   at most 256 bytes
    type   its tensor type
    shape  in NumPy's order, the reverse of ggml's: a matrix is (rows, columns), a row contiguous
    file   path of the file, or part, that holds it
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

    def between(self, start: int, stop: int) -> Bytes:
        """Its packed rows from `start` to before `stop`; no copy."""
        return self.rows[start:stop]


class Held(Protocol):
    """The rows of a tensor that no file has as they are: they are put together when they are asked for."""

    def between(self, start: int, stop: int) -> Bytes:
        """The packed rows from `start` to before `stop`, [stop - start, bytes of a row]; read-only."""
        ...


@dataclass(frozen=True, eq=False)
class Arranged:
    """A tensor that is made of others, such as one with its rows in another order; all else as in Tensor.

    held  makes its rows. What is not asked for is not made, and what was made is not kept here
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    file: Path
    held: Held

    @property
    def rows(self) -> Bytes:
        """The packed rows [product of all axes but the last, bytes of a row]."""
        return self.between(0, prod(self.shape[:-1]))

    @property
    def data(self) -> Bytes:
        """The packed bytes, flat."""
        return self.rows.reshape(-1)

    def between(self, start: int, stop: int) -> Bytes:
        """Its packed rows from `start` to before `stop`."""
        return self.held.between(start, stop)


AnyTensor = Tensor | Arranged
