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
from ..quants import dequantize


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
# Measured on 64 rows of 1024 of six distributions (normal, Laplace, t with 3 degrees, uniform, with outliers, with columns of
# other scales), with an imatrix and without, quantized by ggml 0c1e570; here times 1.3.
ERRORS = {
    "F64": 1e-7, "F32": 1e-7, "F16": 4e-4, "BF16": 3e-3,
    "Q8_0": 0.0035, "Q6_K": 0.053, "Q5_0": 0.026, "Q5_1": 0.024, "Q5_K": 0.024, "Q4_0": 0.061, "Q4_1": 0.049, "Q4_K": 0.048,
    "IQ4_NL": 0.055, "IQ4_XS": 0.056, "MXFP4": 0.12, "NVFP4": 0.084, "Q3_K": 0.11, "IQ3_S": 0.12, "IQ3_XXS": 0.19, "Q2_K": 0.2,
    "IQ2_XXS": 0.34, "IQ2_XS": 0.28, "IQ2_S": 0.22, "IQ1_S": 0.4, "IQ1_M": 0.39, "TQ1_0": 0.47, "TQ2_0": 0.47,
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
    if not isinstance(kind, GGMLQuantizationType):
        raise TensorError(
            f"tensor type {word(kind)} cannot be decoded; expected F64, F32, F16, BF16 or a type of GGUF; convert it to one"
        )
    if kind == GGMLQuantizationType.F64:
        return np.ascontiguousarray(rows).view(np.float64).astype(np.float32)
    return dequantize(kind, rows)


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
    exact    whether every value is the same
    """

    worst: float
    exact: bool

    def within(self, kind: Any) -> bool:
        """Whether the error is what a type explains."""
        return self.worst <= ERRORS[word(kind)]


def error(copy: Stored, source: Stored) -> Error:
    """The error of a copy in another type: that of the rows, relative to the largest magnitudes of their groups of 32."""
    worst, exact = 0.0, True
    for a, b in zip(floats(copy), floats(source), strict=True):
        wrong = np.square(difference(a, b)).mean(axis=1)
        exact = exact and not wrong.any()
        whole = b.shape[1] // GROUP * GROUP or b.shape[1]
        largest = np.abs(b[:, :whole].astype(np.float64)).reshape(len(b), -1, min(GROUP, whole)).max(axis=2)
        scale = np.square(largest).mean(axis=1)
        ratio = np.sqrt(np.divide(wrong, scale, out=np.where(wrong > 0, np.inf, 0.0), where=scale > 0))
        worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0)))
    return Error(worst, exact)


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
