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
    bias   of the head alone: what is added to its products [O]. A block has its biases beside its matrices
    """

    tensor: Tensor
    scale: "Weight | None" = None
    bias: "Weight | None" = None
    _decoded: dict[Any, F] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def type(self) -> GGMLQuantizationType:
        return self.tensor.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def rows(self) -> Bytes:
        return self.tensor.rows

    def matrix(self, number: int) -> "Part":
        """One expert's matrix: a view of its own rows."""
        return Part(self.tensor, number)

    def dense(self, dtype: DType) -> F:
        """The whole tensor in its shape; kept, so meant for norms, biases and convolution kernels."""
        if dtype not in self._decoded:
            value = dequantize(self.type, self.rows).reshape(self.shape).astype(dtype)
            value.setflags(write=False)
            self._decoded[dtype] = value
        return self._decoded[dtype]


@dataclass(frozen=True)
class Part:
    """One matrix [O, I] of a tensor [X, O, I]; a vector [I] is a matrix of one row."""

    whole: Tensor
    number: int

    @property
    def name(self) -> str:
        return f"{self.whole.name}[{self.number}]"

    @property
    def type(self) -> GGMLQuantizationType:
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.whole.shape)[-2:]

    @property
    def rows(self) -> Bytes:
        O, _ = self.shape
        return self.whole.rows[self.number * O : (self.number + 1) * O]


@dataclass(frozen=True)
class Share:
    """A matrix, experts' matrices or a vector that are some rows of one tensor: a product is made whole and then shared out.

    rows_of  which rows, of experts for each alike
    """

    whole: Weight
    rows_of: Ints

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def type(self) -> GGMLQuantizationType:
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        *experts, _, width = self.whole.shape
        return (*experts, len(self.rows_of), width)

    @property
    def rows(self) -> Bytes:
        return self.whole.rows[self.rows_of]

    def matrix(self, number: int) -> Part:
        raise NotImplementedError("experts that are stored together are multiplied together")

    def dense(self, dtype: DType) -> F:
        return self.whole.dense(dtype)[self.rows_of]


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix, as a matrix; nothing is copied."""

    whole: Matrix
    start: int
    stop: int

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def type(self) -> GGMLQuantizationType:
        return self.whole.type

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.whole.shape[1:])

    @property
    def rows(self) -> Bytes:
        return self.whole.rows[self.start : self.stop]

    @property
    def scale(self) -> Weight | None:
        return scale_of(self.whole)

    @property
    def bias(self) -> Share | None:
        whole = bias_of(self.whole)
        return Share(whole, np.arange(self.start, self.stop)) if isinstance(whole, Weight) else None


def scale_of(w: Matrix | Matrices) -> Weight | None:
    """The companion of a matrix, if it is one that has companions."""
    return getattr(w, "scale", None)


def bias_of(w: Matrix) -> Weight | Share | None:
    """What is added to the products of the head, or of some of its rows, if there is anything."""
    return getattr(w, "bias", None)


class Block:
    """The weights of one source block: `block.attn_q` is blk.N.attn_q.weight, `block.ssm_dt_bias` blk.N.ssm_dt.bias."""

    def __init__(self, index: int, weights: Mapping[str, Weight | Share]) -> None:
        self.index = index
        prefix = f"blk.{index}."
        self._weights = {attribute(name.removeprefix(prefix)): w for name, w in weights.items() if name.startswith(prefix)}

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def __getattr__(self, name: str) -> Any:  # a Weight, or the Share that stands for one
        try:
            return self.__dict__["_weights"][name]
        except KeyError:
            raise TensorError(f"blk.{self.index}.{name} is not in this file, but the architecture asked for it") from None


def attribute(name: str) -> str:
    """The attribute that stands for a tensor: attn_q.weight -> attn_q, ssm_dt.bias -> ssm_dt_bias, ssm_a -> ssm_a."""
    return name.removesuffix(".weight").replace(".", "_")
