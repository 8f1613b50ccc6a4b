"""Packed weights and the blocks they form; nothing is decoded before an operation asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import Bytes, DType, F, Ints, Matrices, Matrix
from ..errors import TensorError
from ..gguf.tensor import AnyTensor
from ..quants import dequantize


@dataclass(frozen=True)
class Weight:
    """One tensor of the file. A matrix stays packed (`rows`); a vector is decoded once for each dtype (`dense`).

    tensor  the tensor in the file
    scale   its companion `.scale`, if it has one: a factor [1] of its products; for experts one factor each, [X]
    bias    its companion `.bias`, if it has one: what is added to its products, [O]
    """

    tensor: AnyTensor
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
        """(rows, columns) of a matrix, (X, rows, columns) of experts' matrices, (values,) of a vector."""
        return self.tensor.shape

    @property
    def rows(self) -> Bytes:
        """The packed rows in order, read-only: [O, bytes per row]; of experts [X*O, bytes per row]."""
        return self.tensor.rows

    def matrix(self, number: int) -> "Expert":
        """The matrix [O, I] of expert `number`: a view of its own rows."""
        return Expert(self.tensor, number)

    def dense(self, dtype: DType) -> F:
        """The whole tensor in its shape, read-only. It is kept, so use it for norms, biases and convolution kernels only.

        TensorError for a type that has no weights to decode.
        """
        if dtype not in self._decoded:
            value = dequantize(self.type, self.rows).reshape(self.shape).astype(dtype)
            value.setflags(write=False)
            self._decoded[dtype] = value
        return self._decoded[dtype]


@dataclass(frozen=True)
class Expert:
    """One matrix [O, I] of a tensor [X, O, I].

    whole   the tensor of all experts
    number  which one, 0 to X-1
    """

    whole: AnyTensor
    number: int

    @property
    def name(self) -> str:
        """The tensor's name and the expert's number: `blk.0.ffn_up_exps.weight[3]`."""
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
        """Its own packed rows [O, bytes per row]; no byte of another expert is read."""
        O, _ = self.shape
        return self.whole.between(self.number * O, (self.number + 1) * O)


@dataclass(frozen=True)
class Share:
    """Some rows of one tensor that is a matrix, experts' matrices or a vector: a product is made whole and then shared out.

    whole    the tensor
    rows_of  [O] the numbers of the rows; for experts the same in each
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
        """Its packed rows, copied: [O, bytes per row]."""
        return self.whole.rows[self.rows_of]

    def matrix(self, number: int) -> Expert:
        """NotImplementedError: experts that are stored together are multiplied together, so that no one asks for one."""
        raise NotImplementedError("experts that are stored together are multiplied together")

    def dense(self, dtype: DType) -> F:
        """Its part of the whole vector, decoded: [O] of that dtype."""
        return self.whole.dense(dtype)[self.rows_of]


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix, as a matrix; nothing is copied.

    whole        the matrix
    start, stop  the first row, and the row after the last
    """

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
        """Its packed rows, a view: [stop - start, bytes per row]."""
        return self.whole.tensor.between(self.start, self.stop)

    @property
    def scale(self) -> Weight | None:
        """The whole's factor, if there is one."""
        return self.whole.scale

    @property
    def bias(self) -> Share | None:
        """Its part of the whole's bias, if there is one."""
        return Share(self.whole.bias, np.arange(self.start, self.stop)) if self.whole.bias else None


Output = Weight | Rows
"""The matrix of the head, or some of its rows: logits may be made a part at a time."""


def scale_of(w: Matrix | Matrices) -> Weight | None:
    """The companion `.scale` of a matrix, or None if it has none."""
    return getattr(w, "scale", None)


class Block:
    """The weights of one source block: `block.attn_q` is blk.N.attn_q.weight, `block.ssm_dt_bias` blk.N.ssm_dt.bias.

    index    N, the block's number in the file
    weights  tensor name -> Weight or Share, of any blocks; those of block N are kept

    TensorError for an attribute that this block has no tensor for.
    """

    def __init__(self, index: int, weights: Mapping[str, Weight | Share]) -> None:
        self.index = index
        prefix = f"blk.{index}."
        self._weights = {attribute(name.removeprefix(prefix)): w for name, w in weights.items() if name.startswith(prefix)}

    @property
    def names(self) -> list[str]:
        """The attributes that this block has tensors for."""
        return list(self._weights)

    def has(self, name: str) -> bool:
        """Whether this block has a tensor for an attribute."""
        return name in self._weights

    def with_weights(self, changed: Mapping[str, Weight | Share]) -> "Block":
        """The same block with other weights for some attributes; it stays as it is."""
        other = Block(self.index, {})
        other._weights = self._weights | dict(changed)
        return other

    def __getattr__(self, name: str) -> Any:  # a Weight, or a Share
        try:
            return self.__dict__["_weights"][name]
        except KeyError:
            raise TensorError(
                f"blk.{self.index}.{name} is not in this file, but the architecture asked for it; convert the model again"
            ) from None


def attribute(name: str) -> str:
    """The attribute for a tensor's name: attn_q.weight -> attn_q, ssm_dt.bias -> ssm_dt_bias, ssm_a -> ssm_a."""
    return name.removesuffix(".weight").replace(".", "_")
