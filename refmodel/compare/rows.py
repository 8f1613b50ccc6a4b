"""One row for each compared tensor, and one for each token's logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F, NDInt

FEW = 32  # numbers that are too few to see a factor in
AT_ONCE = 1 << 20  # numbers that are compared at a time
NOT_FINITE = "not finite"  # how a problem begins that is of numbers, not of names or shapes


@dataclass(frozen=True)
class Row:
    """One compared tensor. All figures are of float64 arithmetic; ours is a, theirs is b.

    nmse      Σ(a−b)² / Σb², the definition of llama.cpp's test-backend-ops
    nmse_var  mean (a−b)² / var b, the definition of llama.cpp's check-nmse.py
    max_abs   max |a−b|
    cosine    a·b / |a||b|
    differ    how many numbers have other bits, both as float32
    problem   why there are no figures: missing, not finite, another shape; empty otherwise
    allowed   the largest nmse that rounding explains; infinite where that is not judged
    holes     how many numbers are not finite, and the same on both sides; the figures are of the others
    """

    name: str
    shape: tuple[int, ...]
    nmse: float
    nmse_var: float
    max_abs: float
    cosine: float
    differ: int
    problem: str = ""
    allowed: float = np.inf
    holes: int = 0

    @property
    def within(self) -> bool:
        """Whether there are figures and rounding explains them."""
        return not self.problem and self.nmse <= self.allowed


@dataclass(frozen=True)
class LogitRow:
    """The logits of one token.

    token     its place in the call, 0 the first
    nmse      Σ(ours − theirs)² / Σ theirs²
    kl        Σ p_theirs · (log p_theirs − log p_ours), nats
    rank      place of their best token among ours, 0 the first
    margin    their best logit minus their second
    near_tie  the margin is at most twice the largest difference: which token is first cannot be decided
    """

    token: int
    nmse: float
    kl: float
    top1_ours: int
    top1_theirs: int
    rank: int
    margin: float
    near_tie: bool


def compare(name: str, ours: F, theirs: F) -> Row:
    """Measure one tensor, ours against theirs. Axes of length 1 do not count as a difference of shape.

    Numbers that are not finite are no problem where both sides have the same ones: the model overflows, and both follow it.
    """
    if squeezed(ours.shape) != squeezed(theirs.shape):
        return without_figures(name, ours.shape, ours.size, f"shape {list(ours.shape)}, theirs {list(theirs.shape)}")
    a, b = ours.ravel(), theirs.ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        if lost := unlike(a, b):
            return without_figures(name, ours.shape, ours.size, f"{NOT_FINITE}: {lost}")
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    holes, differ = ours.size - a.size, int((as_bits(a) != as_bits(b)).sum())
    if not differ and ours.dtype == theirs.dtype == np.float32:
        return Row(name, ours.shape, nmse=0.0, nmse_var=0.0, max_abs=0.0, cosine=1.0, differ=0, holes=holes)
    squares = energy = own = both = most = 0.0
    for x, y in zip(in_doubles(a), in_doubles(b), strict=True):
        error = x - y
        squares, energy = squares + float(error @ error), energy + float(y @ y)
        own, both = own + float(x @ x), both + float(x @ y)
        most = max(most, float(np.abs(error).max()))
    return Row(
        name=name,
        shape=ours.shape,
        nmse=ratio(squares, energy),
        nmse_var=ratio(squares / max(b.size, 1), variance(b)),
        max_abs=most,
        cosine=1.0 if squares == 0 else ratio(both, float(np.sqrt(energy * own))),
        differ=differ,
        holes=holes,
    )


def in_doubles(x: F) -> Iterator[F]:
    """The numbers of x [n] in float64, AT_ONCE at a time: the logits of a long text would fill the memory several times."""
    for start in range(0, len(x), AT_ONCE):
        yield x[start : start + AT_ONCE].astype(np.float64)


def variance(x: F) -> float:
    """The variance of x [n] in float64; 0 for no numbers."""
    mean = sum(float(part.sum()) for part in in_doubles(x)) / max(len(x), 1)
    return sum(float(np.square(part - mean).sum()) for part in in_doubles(x)) / max(len(x), 1)


def common_factor(ours: F, theirs: F) -> float:
    """The number c of theirs = c · ours, for arrays of one size; 1 where there is none, as where rounding makes the difference.

    Of the larger half of the numbers, most have the same ratio, and it is not 1: roundings scatter about 1.
    """
    some = slice(None, None, max(1, ours.size // AT_ONCE))
    a, b = ours.ravel()[some].astype(np.float64), theirs.ravel()[some].astype(np.float64)
    large = np.isfinite(a) & np.isfinite(b) & (np.abs(a) > np.median(np.abs(a)))
    if large.sum() < FEW:
        return 1.0
    low, middle, high = np.quantile(b[large] / a[large], (0.1, 0.5, 0.9))
    return float(middle) if high - low < 0.1 * min(abs(middle - 1), abs(middle)) else 1.0


def unlike(a: F, b: F) -> str:
    """How many numbers of each side [n] are not finite, in words; empty if they are the same on both sides."""
    gone = {who: ~np.isfinite(x) for who, x in (("ours", a), ("theirs", b))}
    if np.array_equal(np.where(gone["ours"], a, 0), np.where(gone["theirs"], b, 0), equal_nan=True):
        return ""
    return " and ".join(f"{there.sum()} of {who}" for who, there in gone.items() if there.any())


def without_figures(name: str, shape: tuple[int, ...], size: int, problem: str) -> Row:
    """The row of a tensor that cannot be measured: all figures NaN, and `size` numbers that differ."""
    return Row(name, shape, np.nan, np.nan, np.nan, np.nan, size, problem)


def as_bits(x: F) -> NDInt:
    """The bits of each number as float32, [numbers]."""
    return np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32)


def ratio(a: float, b: float) -> float:
    """a / b, where 0/0 is 0: equal zeros do not differ."""
    return a / b if b else (0.0 if a == 0 else np.inf)


def nmse_of(a: F, b: F) -> float:
    """The squared error of a [n] in float64 by the square of b, over numbers that are finite; infinite if only one of two is."""
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)):
        return float("inf")
    if not finite.all():
        a, b = a[finite], b[finite]
    error = a - b
    return ratio(float(error @ error), float(b @ b))


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its axes of length 1."""
    return tuple(n for n in shape if n != 1)


def compare_logits(ours: F, theirs: F) -> list[LogitRow]:
    """Measure logits token by token: ours and theirs, [T, V] each. A token with one that is not finite has no row."""
    rows = []
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            continue
        p, q = log_softmax(b), log_softmax(a)
        second, first = np.partition(b, -2)[-2:] if b.size > 1 else (-np.inf, b[0])
        best = int(b.argmax())
        rows.append(
            LogitRow(
                token=t,
                nmse=ratio(float((a - b) @ (a - b)), float(b @ b)),
                kl=max(0.0, float(np.exp(p) @ (p - q))),
                top1_ours=int(a.argmax()),
                top1_theirs=best,
                rank=int((a > a[best]).sum()),
                margin=float(first - second),
                near_tie=bool(first - second <= 2 * np.abs(a - b).max()),
            )
        )
    return rows


def log_softmax(x: F) -> F:
    """Logarithms (natural) of the probabilities of logits [V]."""
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
