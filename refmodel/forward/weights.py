"""Packed weights and the blocks they form; nothing is decoded before an operation asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import Bytes, DType, F, Ints, Matrices, Matrix
from ..errors import TensorError
from ..gguf.reader import Tensor
from ..quants import dequantize


@dataclass(frozen=True)
class Weight:
    """One tensor of the file. A matrix stays packed (`rows`); a vector is decoded once for each dtype (`dense`).

    scale  its companion `.scale`, if it has one: a factor [1] of its products, of experts one for each [X]
    bias   its companion `.bias`, if it has one: what is added to its products, [O]
    """

    tensor: Tensor
    scale: "Weight | None" = None
    bias: "Weight | None" = None
    _decoded: dict[Any, F] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The tensor's name in the file."""
        return self.tensor.name

    @property
    def type(self) -> GGMLQuantizationType:
        """Its tensor type."""
        return self.tensor.type

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a matrix (rows, columns), of experts' matrices (X, rows, columns)."""
        return self.tensor.shape

    @property
    def rows(self) -> Bytes:
        """The packed rows, one after another: [O, bytes per row]."""
        return self.tensor.rows

    def matrix(self, number: int) -> "Expert":
        """One expert's matrix: a view of its own rows."""
        return Expert(self.tensor, number)

    def dense(self, dtype: DType) -> F:
        """The whole tensor in its shape, read-only; kept, so meant for norms, biases and convolution kernels."""
        if dtype not in self._decoded:
            value = dequantize(self.type, self.rows).reshape(self.shape).astype(dtype)
            value.setflags(write=False)
            self._decoded[dtype] = value
        return self._decoded[dtype]


@dataclass(frozen=True)
class Expert:
    """One matrix [O, I] of a tensor [X, O, I]."""

    whole: Tensor
    number: int

    @property
    def name(self) -> str:
        """The tensor's name and the expert's number."""
        return f"{self.whole.name}[{self.number}]"

    @property
    def type(self) -> GGMLQuantizationType:
        """The type of the whole tensor."""
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return self.whole.shape[-2:]

    @property
    def rows(self) -> Bytes:
        """Its own packed rows; no byte of another expert is touched."""
        O, _ = self.shape
        return self.whole.rows[self.number * O : (self.number + 1) * O]


@dataclass(frozen=True)
class Share:
    """A matrix, experts' matrices or a vector that are some rows of one tensor: a product is made whole and then shared out.

    rows_of  which rows, of experts for each alike
    bias     what is added to its products: a share of the whole's bias, or a tensor of its own
    """

    whole: Weight
    rows_of: Ints
    bias: "Weight | Share | None" = None

    @property
    def name(self) -> str:
        """The name of the whole tensor."""
        return self.whole.name

    @property
    def type(self) -> GGMLQuantizationType:
        """The type of the whole tensor."""
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), of experts' matrices (X, rows, columns)."""
        *experts, _, width = self.whole.shape
        return (*experts, len(self.rows_of), width)

    @property
    def rows(self) -> Bytes:
        """Its packed rows, copied."""
        return self.whole.rows[self.rows_of]

    def matrix(self, number: int) -> Expert:
        """Never asked for: experts that are stored together are multiplied together."""
        raise NotImplementedError("experts that are stored together are multiplied together")

    def dense(self, dtype: DType) -> F:
        """Its part of the whole vector, decoded."""
        return self.whole.dense(dtype)[self.rows_of]


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix, as a matrix; nothing is copied."""

    whole: Weight
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of the whole tensor."""
        return self.whole.name

    @property
    def type(self) -> GGMLQuantizationType:
        """The type of the whole tensor."""
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return (self.stop - self.start, *self.whole.shape[1:])

    @property
    def rows(self) -> Bytes:
        """Its packed rows, a view."""
        return self.whole.rows[self.start : self.stop]

    @property
    def scale(self) -> Weight | None:
        """The whole's factor."""
        return self.whole.scale

    @property
    def bias(self) -> Share | None:
        """Its part of the whole's bias, if there is one."""
        return Share(self.whole.bias, np.arange(self.start, self.stop)) if self.whole.bias else None


Output = Weight | Rows
"""The matrix of the head, or some of its rows: logits may be made a part at a time."""


def scale_of(w: Matrix | Matrices) -> Weight | None:
    """The companion `.scale` of a matrix, if it is one that has companions."""
    return getattr(w, "scale", None)


class Block:
    """The weights of one source block: `block.attn_q` is blk.N.attn_q.weight, `block.ssm_dt_bias` blk.N.ssm_dt.bias."""

    def __init__(self, index: int, weights: Mapping[str, Weight | Share]) -> None:
        self.index = index
        prefix = f"blk.{index}."
        self._weights = {attribute(name.removeprefix(prefix)): w for name, w in weights.items() if name.startswith(prefix)}

    def __getattr__(self, name: str) -> Any:  # a Weight, or a Share
        try:
            return self.__dict__["_weights"][name]
        except KeyError:
            raise TensorError(f"blk.{self.index}.{name} is not in this file, but the architecture asked for it") from None


def attribute(name: str) -> str:
    """The attribute that a tensor is: attn_q.weight -> attn_q, ssm_dt.bias -> ssm_dt_bias, ssm_a -> ssm_a."""
    return name.removesuffix(".weight").replace(".", "_")
