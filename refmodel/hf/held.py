"""What a tensor of llama.cpp is made of in a folder: rows and columns in another order, or numbers that are computed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arrays import F32, Bytes, Ints
from ..errors import TensorError
from ..quants import dequantize
from .safetensors import FolderTensor

TYPES = {"F32": Q.F32, "F16": Q.F16, "BF16": Q.BF16}  # safetensors' names of the types that are read
Compute = Callable[[F32], F32]


def type_of(where: str, t: FolderTensor) -> Q:
    """The tensor type of a folder's tensor. TensorError, which begins with `where`, for one that is no float of 16 or 32 bits."""
    if t.type not in TYPES:
        raise TensorError(
            f"{where}: {t.name} is {t.type}; expected {', '.join(TYPES)}: give a folder whose weights are not quantized, or a "
            "GGUF of the model"
        )
    if t.data.size != prod(t.shape) * (4 if t.type == "F32" else 2):
        raise TensorError(f"{where}: {t.name} has {t.data.size} bytes, which is not {t.type} of shape {t.shape}; get it again")
    return TYPES[t.type]


def packed_rows(t: FolderTensor) -> Bytes:
    """The rows of a tensor, [product of all axes but the last, bytes of a row]; those of a vector are its numbers. No copy."""
    count = prod(t.shape[:-1]) if len(t.shape) > 1 else prod(t.shape)
    return t.data.reshape(count, -1)


class Rows:
    """Rows of a folder's matrices in another order. A run of neighbours is a view of the file; other rows are copied.

    pieces   the matrices, packed rows [R, bytes of a row] each: one, or one for each expert
    rows     which rows of each piece: the number of the first of `count` neighbours, or all numbers in order [count]
    count    how many rows of each piece
    columns  the numbers of the columns in order [I]; None for all as they are
    size     bytes of one number
    """

    def __init__(self, pieces: Sequence[Bytes], rows: Ints | int, count: int, columns: Ints | None = None, size: int = 2) -> None:
        self.pieces, self.rows, self.count, self.columns, self.size = pieces, rows, count, columns, size

    def between(self, start: int, stop: int) -> Bytes:
        """The rows from `start` to before `stop`, counted over all pieces: [stop - start, bytes of a row]."""
        n = self.count
        numbers = range(start // n, -(-stop // n))
        parts = [self._of(self.pieces[i], max(start - i * n, 0), min(stop - i * n, n)) for i in numbers]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of(self, piece: Bytes, start: int, stop: int) -> Bytes:
        chosen = slice(self.rows + start, self.rows + stop) if isinstance(self.rows, int) else self.rows[start:stop]
        found = piece[chosen]
        if self.columns is None:
            return found
        apart = found.reshape(len(found), -1, self.size)
        return np.ascontiguousarray(apart[:, self.columns]).reshape(len(found), -1)


class Values:
    """Numbers of a folder that llama.cpp's files have as F32: norms, biases, routers. They are computed once, when asked for.

    compute  makes them, in the shape of the tensor
    rows     how many rows it has
    """

    def __init__(self, compute: Callable[[], F32], rows: int) -> None:
        self.compute, self.rows = compute, rows

    @cached_property
    def _packed(self) -> Bytes:
        packed = np.ascontiguousarray(self.compute(), np.float32).view(np.uint8).reshape(self.rows, -1)
        packed.setflags(write=False)
        return packed

    def between(self, start: int, stop: int) -> Bytes:
        """The rows from `start` to before `stop`, as F32: [stop - start, bytes of a row]."""
        return self._packed[start:stop]


def numbers(kind: Q, t: FolderTensor, rows: Ints | None, value: Compute | None) -> Callable[[], F32]:
    """What computes a tensor's numbers as float32, [rows, columns] or [numbers].

    rows   the numbers of its rows in order; None for all as they are
    value  what is then made of each number; None for nothing
    """

    def compute() -> F32:
        found = dequantize(kind, packed_rows(t))
        found = found if rows is None else found[rows]
        return found if value is None else value(found)

    return compute
