"""The values of two tensors compared: the same, within a type's error, a multiple, zeros, or how far apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from ..arrays import F32, Bytes
from ..errors import TensorError
from ..numerics.reference import decoded as by_kernels
from ..ops.ieee import bfloat


class Stored(Protocol):
    """A tensor of a file, GGUF or safetensors."""

    @property
    def type(self) -> Any:
        """A GGML type, or a safetensors dtype name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """In NumPy's order: [O, I] of a matrix."""
        ...

    @property
    def data(self) -> Bytes:
        """The bytes, flat."""
        ...


F64: TypeAlias = npt.NDArray[np.float64]

AT_ONCE = 1 << 24  # values that are decoded at a time
GROUP = 32  # neighbours in a row that share the scale of an error

# The root mean square error of a row that a type may leave, in units of the root mean square of its groups' largest magnitudes.
# Measured on rows of 1024 of seven distributions (normal, Laplace, t with 3 degrees, uniform, with outliers, with columns and with
# blocks of other scales), without an imatrix and with four, the most uneven exp(3 N(0, 1)), quantized by ggml 0c1e570; times 1.3.
ERRORS = {
    "F64": 1e-7, "F32": 1e-7, "F16": 4e-4, "BF16": 3e-3,
    "Q8_0": 0.0035, "Q6_K": 0.056, "Q5_0": 0.057, "Q5_1": 0.051, "Q5_K": 0.037, "Q4_0": 0.086, "Q4_1": 0.083, "Q4_K": 0.09,
    "IQ4_NL": 0.081, "IQ4_XS": 0.069, "MXFP4": 0.124, "NVFP4": 0.084, "Q3_K": 0.135, "IQ3_S": 0.147, "IQ3_XXS": 0.243,
    "Q2_K": 0.243, "IQ2_XXS": 0.6, "IQ2_XS": 0.34, "IQ2_S": 0.28, "IQ1_S": 0.45, "IQ1_M": 0.46, "TQ1_0": 0.47, "TQ2_0": 0.47,
    "Q1_0": 0.55, "Q2_0": 0.42,
}  # fmt: skip
# The largest error of one value in units of its row's largest magnitude, of the same measurement. An uneven imatrix gives up values
# that hardly count, so that coarser types have no such bound.
LARGEST = {
    "Q8_0": 0.0056, "Q6_K": 0.61, "Q5_0": 0.56, "Q5_1": 0.53, "Q5_K": 0.53, "Q4_0": 0.69, "Q4_1": 1.02, "Q4_K": 0.95,
    "IQ4_NL": 0.72, "IQ4_XS": 0.71, "MXFP4": 0.33, "NVFP4": 0.23, "Q3_K": 0.8, "IQ3_S": 1.2,
}  # fmt: skip
ROUNDING = {"F64": 1e-7, "F32": 1e-6, "BF16": 3e-3}  # of a product with a factor, relative; others keep their scales in float16
FLOATS = {"F64", "F32", "F16", "BF16"}
RANKS = 64  # a difference of at most this rank is told from a full one


def word(kind: Any) -> str:
    """The name of a type."""
    return str(getattr(kind, "name", kind))


def floats(t: Stored) -> Iterator[F32]:
    """The values, some rows [rows, I] at a time. TensorError for a type that cannot be decoded."""
    width = t.shape[-1] if t.shape else 1
    rows = t.data.reshape(max(prod(t.shape) // max(width, 1), 1), -1)
    step = max(1, AT_ONCE // max(width, 1))
    for at in range(0, len(rows), step):
        yield decoded(t, rows[at : at + step])


def decoded(t: Stored, rows: Bytes) -> F32:
    """Packed rows as float32 [rows, I]. TensorError for a type that cannot be decoded."""
    kind = GGMLQuantizationType[t.type] if isinstance(t.type, str) and t.type in FLOATS else t.type
    if isinstance(kind, str):
        raise TensorError(
            f"tensor type {word(kind)} cannot be decoded; expected F64, F32, F16, BF16 or a type of GGUF; convert it to one"
        )
    if kind == GGMLQuantizationType.F64:
        return np.ascontiguousarray(rows).view(np.float64).astype(np.float32)
    return by_kernels(kind, rows)


@cache
def decodes(kind: Any) -> bool:
    """Whether values of a type can be compared."""
    return word(kind) in ERRORS and (not isinstance(kind, str) or kind in FLOATS)


def flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without a leading axis of length 1, which does not count."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 and shape[1:] else shape


@dataclass(frozen=True)
class Error:
    """How far a copy is from its source.

    worst    the largest error of a row, in units of ERRORS
    largest  the largest error of a value, in units of LARGEST
    exact    whether every value is the same
    strays   how many values are not those that the source's are rounded to, of a float type
    """

    worst: float
    largest: float
    exact: bool
    strays: int

    def within(self, kind: Any) -> bool:
        """Whether the error is what a type explains: a float type rounds in one way only."""
        if word(kind) in FLOATS:
            return not self.strays
        return self.worst <= ERRORS[word(kind)] and self.largest <= LARGEST.get(word(kind), np.inf)

    def describe(self, kind: Any) -> str:
        """Why it is not within."""
        if word(kind) in FLOATS:
            return f"{self.strays} values are no rounding of them"
        if self.worst <= ERRORS[word(kind)]:
            return f"a value is off by {self.largest:.2g} of its row's largest, allowed {LARGEST[word(kind)]:.2g}"
        return f"off by {self.worst:.2g}, allowed {ERRORS[word(kind)]:.2g}"


def error(copy: Stored, source: Stored) -> Error:
    """The error of a copy in another type: that of the rows, relative to the largest magnitudes of their groups of 32."""
    worst, largest, exact, strays = 0.0, 0.0, True, 0
    for a, b in zip(floats(copy), floats(source), strict=True):
        apart = np.abs(difference(a, b))
        wrong = np.square(apart).mean(axis=1)
        exact = exact and not wrong.any()
        whole = b.shape[1] // GROUP * GROUP or b.shape[1]
        sizes = np.abs(b.astype(np.float64))
        groups = sizes[:, :whole].reshape(len(b), -1, min(GROUP, whole)).max(axis=2)
        worst = max(worst, most(np.sqrt(wrong), np.sqrt(np.square(groups).mean(axis=1))))
        largest = max(largest, most(apart.max(axis=1, initial=0.0), sizes.max(axis=1, initial=0.0)))
        strays += no_rounding(a, b, word(copy.type)) if word(copy.type) in FLOATS else 0
    return Error(worst, largest, exact, strays)


def most(wrong: F64, scale: F64) -> float:
    """The largest ratio of two vectors; infinite where only the scale is zero."""
    ratio = np.divide(wrong, scale, out=np.where(wrong > 0, np.inf, 0.0), where=scale > 0)
    return float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0))


TINY = 2.0**-126  # below it bfloat16 is sometimes flushed to zero


def no_rounding(a: F32, b: F32, kind: str) -> int:
    """How many of a's values are not b's rounded to a float type: to the nearest, towards zero, or by way of the other half."""
    right = [b]
    if kind in ("F16", "BF16"):
        right = [half(b), half(bfloat(b))] if kind == "F16" else [bfloat(b), bfloat(half(b)), shortened(b)]
    odd = ~((np.isnan(a) & np.isnan(b)) | ((a == 0) & (np.abs(b) < TINY)))
    for x in right:
        odd &= a != x
    return int(odd.sum())


def half(x: F32) -> F32:
    """Rounded to float16, as float32."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def shortened(x: F32) -> F32:
    """Cut to bfloat16, as float32."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def difference(a: F32, b: F32) -> F64:
    """a - b in float64; 0 where both are the same infinity or both NaN."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, a.astype(np.float64) - b)


def relation(copy: Stored, source: Stored, name: str) -> str:
    """How a tensor relates to the one that it should be, in words; empty if that cannot be said."""
    if flat(copy.shape) != flat(source.shape) or not (decodes(copy.type) and decodes(source.type)):
        return ""
    sums = np.zeros(3)
    with np.errstate(invalid="ignore"):
        for a, b in wide(copy, source):
            sums += [np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)]
    both, ours, theirs = sums
    if not np.isfinite(sums).all() or theirs == 0:
        return ""
    if ours == 0:
        return "all zeros"
    factor, rest, changed, count = both / theirs, 0.0, 0, 0
    for a, b in wide(copy, source):
        rest += float(np.square(a - factor * b).sum())
        changed, count = changed + int((a != b).sum()), count + a.size
    if changed == 0:
        return f"the values of {name}"
    if rest <= ROUNDING.get(word(copy.type), 1e-3) ** 2 * ours and abs(factor - 1) > 1e-6:
        return f"{name} times {factor:.4g}"
    apart = np.sqrt(max(ours + theirs - 2 * both, 0.0) / theirs)
    return f"{changed} of its {count} values differ from {name}, by {apart:.2g} relative to its norm{low_rank(copy, source)}"


def wide(copy: Stored, source: Stored) -> Iterator[tuple[F64, F64]]:
    """The values of both in float64, some rows at a time."""
    return ((a.astype(np.float64), b.astype(np.float64)) for a, b in zip(floats(copy), floats(source), strict=True))


def low_rank(copy: Stored, source: Stored) -> str:
    """The rank of the difference in words, if it is low, as in a merged adapter; else empty."""
    if word(copy.type) not in FLOATS or len(flat(copy.shape)) != 2 or min(copy.shape) < 2 * RANKS:
        return ""
    r = np.random.default_rng(0)
    probe = r.standard_normal((copy.shape[-1], RANKS + 8)).astype(np.float32)
    seen = np.concatenate([(a - b) @ probe for a, b in zip(floats(copy), floats(source), strict=True)])
    sizes = np.linalg.svd(seen, compute_uv=False)
    rank = int((sizes > 0.05 * sizes[0]).sum())
    return f", the difference has rank {rank}" if rank <= RANKS // 2 and sizes[rank] < 0.02 * sizes[0] else ""
