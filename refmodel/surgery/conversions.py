"""What a converter did wrong, by name: a tensor held against what a folder's tensor makes, with a step left out or done otherwise.

A guess is a tensor that such a converter makes. Some rows of it are compared with those of the found tensor; the first guess that
has its values, within the error of its type, names the fault.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from ..arrays import F32, Bytes
from ..errors import TensorError
from ..gguf.tensor import AnyTensor
from ..hf.classes import Move
from ..hf.orders import DECAY, PLAIN, Change, Order
from ..hf.tensors import Made, arranged
from .copy_map import block_of
from .values import ERRORS, FLOATS, Error, decoded, decodes, error, flat, word

PIECES, ROWS = 8, 4  # a guess is tried with so many pieces of so many neighbouring rows
SMALL = 1 << 24  # numbers of a tensor that is looked at as a whole
LAST_BITS = 4e-7  # of float32, in the units of values.ERRORS: what another library's exp leaves


@dataclass(frozen=True)
class Part:
    """Some rows of a tensor: a tensor of its own, as values.error compares them."""

    type: Any
    shape: tuple[int, ...]
    data: Bytes


def part(t: AnyTensor, start: int, stop: int) -> Part:
    """The rows of a tensor from `start` to before `stop`."""
    return Part(t.type, (stop - start, t.shape[-1]), t.between(start, stop).reshape(-1))


def explained(apart: Error, kind: Any) -> bool:
    """Whether a type explains a distance: its rounding, or that of a float's last bits, which another order of steps leaves."""
    return apart.within(kind) or (word(kind) in FLOATS and apart.worst <= ERRORS[word(kind)])


def alike(found: AnyTensor, guess: AnyTensor) -> bool:
    """Whether the found tensor has the values of a guess, within the error of its own type, in all rows that are tried."""
    if flat(found.shape) != flat(guess.shape) or not decodes(guess.type):
        return False
    R = prod(found.shape[:-1])
    starts = sorted({int(s) for s in np.linspace(0, max(R - ROWS, 0), PIECES)})
    parts = ((s, min(s + ROWS, R)) for s in starts)
    return all(explained(error(part(found, *span), part(guess, *span)), found.type) for span in parts)


@dataclass(frozen=True)
class Faults:
    """Names what is wrong between the tensors of a folder and of a GGUF.

    made     the folder's tensors, and what they are made of
    from_it  whether the GGUF was made of the folder; otherwise the folder was made of the GGUF
    right    the tensors of the source, by name
    """

    made: Made
    from_it: bool
    right: Mapping[str, AnyTensor]

    def named(self, found: AnyTensor, name: str) -> str:
        """What is wrong with a tensor that should be the source's tensor `name`, in words; empty if that is not known."""
        right = self.right[name]
        if not (decodes(found.type) and decodes(right.type)):
            return ""
        if found.type != right.type and found.data.size == right.data.size and np.array_equal(found.data, right.data):
            return f"its type says {word(found.type)}, but its bytes are {word(right.type)} numbers"
        packed = found if self.from_it else right  # the tensor of the GGUF, which the guesses of the table would be
        known = ((words, alike(packed, guess)) for words, guess in self.steps(name))
        others = ((words, alike(found, guess)) for words, guess in self.others(name))
        first = next((words for some in (known, others) for words, is_so in some if is_so), "")
        return first or turned(found, right) or reordered(found, right)

    def rounded(self, found: AnyTensor, name: str) -> str:
        """Why a tensor may differ from the source's by the last bits of its values, with nothing wrong; empty if it may not."""
        sources, move = self.made.sources.get(name, ([], None))
        computed = name not in self.made.sources or (move is not None and move.change is DECAY)
        if computed and error(found, self.right[name]).worst <= LAST_BITS:
            return "in the last bits of float32, as another library computes them"
        if move is None or move.change is None or sources[0].type != "F16":
            return ""
        of = move.change.of
        half = Change(lambda x: of(x).astype(np.float16).astype(np.float32), "", "")
        guess = self.guess(name, replace(move, change=half))
        return "by float16's rounding, in which llama.cpp's converter computes them" if guess and alike(found, guess) else ""

    def guess(self, name: str, move: Move) -> AnyTensor | None:
        """The tensor that another move makes of the folder's; None if it makes none."""
        sources, _ = self.made.sources[name]
        target = name.split(".", 2)[2] if name.startswith("blk.") else name
        try:
            return arranged("", name, target, sources, move, self.made.hp)
        except TensorError:  # rows that do not fit another order are no guess
            return None

    def steps(self, name: str) -> Iterator[tuple[str, AnyTensor]]:
        """The tensors that are made with a step left out, or with one of its known mistakes instead."""
        if name not in self.made.sources:
            return
        _, move = self.made.sources[name]
        for words, wrong in (*left_out(move, self.from_it), *mistaken(move, name)):
            if guess := self.guess(name, wrong):
                yield words, guess

    def others(self, name: str) -> Iterator[tuple[str, AnyTensor]]:
        """The source's other tensors of the same shape: first those of the same kind, of the nearest block."""
        block, right = block_of(name, "blk."), self.right[name]
        kind = name.partition(".")[2].partition(".")[2]

        def far(other: str) -> tuple[bool, int]:
            number = block_of(other, "blk.")
            return not other.endswith(f".{kind}"), abs((number or 0) - (block or 0)) if number is not None else 1 << 30

        for other in sorted(self.right, key=far):
            if other != name and flat(self.right[other].shape) == flat(right.shape):
                yield f"it is {other}", self.right[other]


def left_out(move: Move, from_it: bool) -> Iterator[tuple[str, Move]]:
    """Moves without one or several of their steps, and what is then wrong with the copy."""
    steps: dict[str, Order | Change | None] = {"rows": move.rows, "columns": move.columns, "change": move.change}
    known = {name: step.without if from_it else step.kept for name, step in steps.items() if step}
    for some in (some for count in range(1, len(known) + 1) for some in combinations(known, count)):
        rows, columns = (None if name in some else step for name, step in (("rows", move.rows), ("columns", move.columns)))
        words = "; ".join(dict.fromkeys(known[name] for name in some))
        yield words, replace(move, rows=rows, columns=columns, change=None if "change" in some else move.change)


def mistaken(move: Move, name: str) -> Iterator[tuple[str, Move]]:
    """Moves with a known mistake in one of their steps, and what it is."""
    for order in (move.rows, move.columns):
        for arrange, words in order.mistakes if order else ():
            wrong = replace(order, of=arrange) if order else None
            yield words, replace(move, rows=wrong) if order is move.rows else replace(move, columns=wrong)
    change = move.change or (PLAIN if name.endswith("norm.weight") else None)
    for compute, words in change.mistakes if change else ():
        yield words, replace(move, change=Change(compute, "", ""))
    if name.endswith("conv1d.weight"):
        yield "its taps are the wrong way round", replace(move, change=Change(lambda x: x[:, ::-1], "", ""))


def whole(t: AnyTensor) -> F32:
    """All values of a tensor [rows, columns]."""
    return decoded(t, t.rows)


def turned(found: AnyTensor, right: AnyTensor) -> str:
    """Whether a matrix is transposed, or its rows are shifted; in words."""
    if len(right.shape) != 2 or prod(right.shape) > SMALL:
        return ""
    a, b = whole(found), whole(right)
    if near(a, b.T, found):
        return "it is transposed"
    for words, mine, theirs in (("row i is row i - 1", a[1:], b[:-1]), ("row i is row i + 1", a[:-1], b[1:])):
        if len(b) > 2 and near(mine, theirs, found):
            return f"its rows are shifted: {words}"
    return ""


def near(a: F32, b: F32, kind: AnyTensor) -> bool:
    """Whether values [rows, columns] are others', within the error of the type of a tensor."""
    if a.shape != b.shape:
        return False
    mine, theirs = (np.ascontiguousarray(x, np.float32).view(np.uint8).reshape(-1) for x in (a, b))
    return explained(error(Part("F32", a.shape, mine), Part("F32", b.shape, theirs)), kind.type)


def reordered(found: AnyTensor, right: AnyTensor) -> str:
    """Whether a tensor has the source's experts, rows or columns in another order; in words."""
    if flat(found.shape) != flat(right.shape) or prod(right.shape) > SMALL or len(right.shape) < 2:
        return ""
    a, b = whole(found), whole(right)
    if len(right.shape) == 3:
        X = right.shape[0]
        return in_order("expert", a.reshape(X, -1), b.reshape(X, -1), found)
    return in_order("row", a, b, found) or in_order("column", a.T, b.T, found)


def in_order(what: str, a: F32, b: F32, kind: AnyTensor) -> str:
    """Whether the rows of `a` are those of `b` in another order; in words."""
    mine, theirs = fingerprints(a), fingerprints(b)
    by_value = np.argsort(theirs)
    places = np.clip(np.searchsorted(theirs[by_value], mine), 1, len(b) - 1)
    left, right = theirs[by_value[places - 1]], theirs[by_value[places]]
    nearest = by_value[np.where(np.abs(mine - left) < np.abs(mine - right), places - 1, places)]
    moved = np.flatnonzero(nearest != np.arange(len(a)))
    if not len(moved) or len(set(nearest.tolist())) != len(a) or not near(a, b[nearest], kind):
        return ""
    return (
        f"its {what}s are in another order: {what} {moved[0]} is {what} {nearest[moved[0]]}, and {len(moved) - 1} more have moved"
    )


def fingerprints(x: F32) -> Any:
    """One number for each row, by which equal rows are found; quantization moves it little."""
    weights = np.random.default_rng(0).standard_normal(x.shape[1])
    return np.nan_to_num(x.astype(np.float64) @ weights)
