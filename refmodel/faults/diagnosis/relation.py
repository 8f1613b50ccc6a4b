"""The simplest relation between two arrays of one operation: what theirs is of ours, when no fault of the library explains it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import F, Ints
from ...compare.rows import ratio
from ...ops import activation

WIDEST = 2048  # numbers of a token whose permutations are looked for
HOLDS = 1e-4  # part of the difference that a relation may leave
ROUNDING = 0.1  # the same where rounding explains what it leaves
ROUNDED = 1e-13  # NMSE of numbers that are the same in float32
PART = 0.25  # of a token's heads or numbers, or of the tokens: a difference in no more is one of a part


@dataclass(frozen=True)
class Relation:
    """A relation that holds.

    kind  one word: factor, offset, permutation, ...
    words what theirs is
    left  NMSE that it leaves
    """

    kind: str
    words: str
    left: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


def relate(ours: F, theirs: F, earlier: Mapping[str, F], hp: Any, noise: float) -> Relation | None:
    """The simplest relation that holds between arrays [T, ...]; None if none of those that are known does.

    earlier  tap -> their array, of what the block computed before
    noise    NMSE that rounding explains
    """
    T = len(ours)
    a, b = (np.asarray(x, np.float64).reshape(T, -1) for x in (ours, theirs))
    difference = nmse(a, b)
    least = max(min(noise, ROUNDING * difference), HOLDS * difference)
    for kind, words, made in candidates(a, b, earlier, hp, ours.shape):
        left = nmse(made, b)
        if left <= least:
            return Relation(kind, words, left)
    return None


def nmse(a: F, b: F) -> float:
    """Σ(a−b)² / Σb²; the plain sum where b is zero."""
    energy = float(np.sum(b * b))
    lost = float(np.sum((a - b) ** 2))
    return ratio(lost, energy) if energy else lost


Made = tuple[str, str, F]


def candidates(a: F, b: F, earlier: Mapping[str, F], hp: Any, shape: Sequence[int]) -> Iterator[Made]:
    """What theirs may be of ours, the simplest first: (kind, words, what ours becomes)."""
    yield from of_numbers(a, b)
    yield from of_tokens(a, b)
    yield from of_earlier(b, earlier)
    yield from of_heads(a, b, hp)
    yield from of_channels(a, b)
    yield from of_pairs(a, b, hp, shape)
    yield from of_parts(a, b, hp)


def of_numbers(a: F, b: F) -> Iterator[Made]:
    """All numbers alike: zeros, a factor, an offset, both, rounding, limits."""
    yield "zeros", "every number of theirs is 0", np.zeros_like(a)
    size = float(np.sum(a * a)) or 1.0
    factor = float(np.sum(a * b)) / size
    yield "factor", times(factor), factor * a
    offset = float(np.mean(b - a))
    yield "offset", f"theirs is ours plus {offset:.5g}", a + offset
    mean = a - a.mean()
    slope = float(np.sum(mean * (b - b.mean()))) / (float(np.sum(mean * mean)) or 1.0)
    start = float(b.mean() - slope * a.mean())
    yield "factor and offset", f"theirs is {slope:.5g} times ours plus {start:.5g}", slope * a + start
    low, high = float(b.min()), float(b.max())
    yield "limits", f"theirs is ours cut off below {low:.4g} and above {high:.4g}", np.clip(a, low, high)
    for power, words in ((2.0, "the square of ours"), (0.5, "the square root of ours")):
        yield "power", f"theirs is {words}", np.sign(a) * np.abs(a) ** power
    if a.min() > 0:
        yield "power", "theirs is one over ours", 1 / a


def times(factor: float) -> str:
    """Theirs as a multiple of ours, in words; a factor near 1 by what it is more."""
    if abs(factor + 1) < 1e-3:
        return "theirs is ours with the other sign"
    more = factor - 1
    return (
        f"theirs is {factor:.5g} times ours"
        if abs(more) > 1e-3
        else f"theirs is 1 {'+' if more > 0 else '-'} {abs(more):.2g} times ours"
    )


def of_tokens(a: F, b: F) -> Iterator[Made]:
    """Token by token, or one channel like another: shifts, factors of tokens and of channels."""
    T = len(a)
    if T > 2:
        for by in (1, -1, 2, -2):
            rolled = np.roll(a, by, axis=0)
            edge = slice(0, by) if by > 0 else slice(by, None)
            rolled[edge] = b[edge]
            late = "before" if by > 0 else "after"
            yield "token shift", f"theirs at token t is ours at the token {abs(by)} {late} it", rolled
        yield "token order", "the tokens are in reverse order", a[::-1]
        offset = np.median(b - a, axis=0)
        yield "channel offset", "a constant vector is added at every token, as a bias is", a + offset
        factor = np.sum(a * b, axis=0) / np.maximum(np.sum(a * a, axis=0), 1e-300)
        yield (
            "channel factor",
            f"each channel has its own factor, {factor.min():.3g} to {factor.max():.3g}, as a norm's weight",
            a * factor,
        )
    if a.shape[1] > 2:
        by_token = np.sum(a * b, axis=1) / np.maximum(np.sum(a * a, axis=1), 1e-300)
        low, high = by_token.min(), by_token.max()
        yield "token factor", f"each token has its own factor, {low:.3g} to {high:.3g}, as a norm's", a * by_token[:, None]


ACTIVATIONS: dict[str, Callable[[F], F]] = {
    "SiLU": activation.silu,
    "sigmoid": activation.sigmoid,
    "tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU squared": lambda x: np.square(np.maximum(x, 0)),
    "GELU (tanh)": lambda x: x * activation.sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "GELU (quick, x sigmoid(1.702 x))": lambda x: x * activation.sigmoid(1.702 * x),
    "softplus": lambda x: np.logaddexp(0, x),
    "exp": lambda x: np.exp(np.minimum(x, 80)),
    "one minus sigmoid": lambda x: 1 - activation.sigmoid(x),
    "leaky ReLU": lambda x: np.where(x > 0, x, 0.01 * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "nothing": lambda x: x,
}


def of_earlier(b: F, earlier: Mapping[str, F]) -> Iterator[Made]:
    """What an earlier tap of the block is: the operation was skipped, or has another activation."""
    inputs = {tap: np.asarray(x, np.float64).reshape(len(b), -1) for tap, x in earlier.items() if x.size == b.size}
    recent = list(inputs.items())[::-1][:8]
    for tap, x in recent:
        yield "skipped", f"theirs is {tap}: the operations after it are left out", x
    for tap, x in recent:
        for name, function in ACTIVATIONS.items():
            if name != "nothing":
                yield "activation", f"theirs is the {name} of {tap}", function(x)
    for gate, x in recent[:3]:
        for other, y in recent[:3]:
            for name, function in ACTIVATIONS.items():
                if gate != other:
                    yield "activation", f"theirs is the {name} of {gate} times {other}", function(x) * y
    for i, (one, x) in enumerate(recent[:5]):
        for other, y in recent[i + 1 : 5]:
            yield "sum", f"theirs is {one} plus {other}", x + y
            yield "difference", f"theirs is {other} minus {one}", y - x
            yield "product", f"theirs is {one} times {other}", x * y


def of_heads(a: F, b: F, hp: Any) -> Iterator[Made]:
    """Heads in another order, or each transposed, reversed, or with a factor of its own."""
    width = a.shape[1]
    for count in dict.fromkeys((hp.n_head, hp.n_head_kv, hp.n_v_head, hp.n_k_head, 2 * hp.n_head)):
        if not count or count < 2 or width % count:
            continue
        x, y = (z.reshape(len(a), count, -1) for z in (a, b))
        index = matching(x.swapaxes(0, 1).reshape(count, -1), y.swapaxes(0, 1).reshape(count, -1))
        if index is not None and (index != np.arange(count)).any():
            listed = ", ".join(map(str, index[:8]))
            yield "permutation of heads", f"of {count} heads theirs are ours number {listed}", x[:, index].reshape(a.shape)
        factor = np.sum(x * y, axis=(0, 2)) / np.maximum(np.sum(x * x, axis=(0, 2)), 1e-300)
        words = f"each of {count} heads has its own factor, {factor.min():.3g} to {factor.max():.3g}"
        yield "factor of heads", words, (x * factor[:, None]).reshape(a.shape)
        yield (
            "transposition",
            f"{count} heads of {width // count} are stored as {width // count} of {count}",
            x.swapaxes(1, 2).reshape(a.shape),
        )
        back = y.swapaxes(1, 2).reshape(len(a), -1)
        if width // count != count and nmse(a, back) < HOLDS:
            yield "transposition", f"theirs has {width // count} numbers of {count} heads the other way round", b
        yield "order in heads", "the numbers of each head are in reverse order", x[:, :, ::-1].reshape(a.shape)


def matching(x: F, y: F) -> Ints | None:
    """For each row of y the row of x that it is, [n]; None if one has none, or two the same."""
    a, b = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300) for z in (x, y))
    index = (b @ a.T).argmax(axis=1)
    return index if len(set(index.tolist())) == len(index) else None


def of_channels(a: F, b: F) -> Iterator[Made]:
    """Channels in another order."""
    width = a.shape[1]
    yield "order of channels", "the numbers of a token are in reverse order", a[:, ::-1]
    for by in (1, -1):
        yield "order of channels", f"the numbers of a token are moved by {by}", np.roll(a, by, axis=1)
    if width % 2 == 0:
        half = np.concatenate([a[:, width // 2 :], a[:, : width // 2]], axis=1)
        yield "order of channels", "the halves of a token's numbers are exchanged", half
    if len(a) >= 4 and 2 < width <= WIDEST:
        index = matching(a.T, b.T)
        if index is not None:
            yield "permutation", "the numbers of a token are in another order", a[:, index]


def of_parts(a: F, b: F, hp: Any) -> Iterator[Made]:
    """Only a few heads, numbers of a token, or tokens differ: theirs is taken for right there."""
    T, width = a.shape
    for name, count in (("head", hp.n_head), ("value head", hp.n_v_head), ("number", width), ("token", T)):
        if count < 2 or (name != "token" and width % count):
            continue
        x, y = (z.reshape(T, -1) if name == "token" else z.reshape(T, count, -1).swapaxes(0, 1).reshape(count, -1) for z in (a, b))
        energy = np.sum((x - y) ** 2, axis=1)
        few = np.flatnonzero(energy > HOLDS * energy.max() / count)
        if len(few) <= max(1, PART * count):
            made = x.copy()
            made[few] = y[few]
            back = made if name == "token" else made.reshape(count, T, -1).swapaxes(0, 1)
            listed = ", ".join(map(str, few[:8])) + ", ..." * (len(few) > 8)
            yield "part", f"theirs differs in {name} {listed} only, of {count}", back.reshape(a.shape)


def of_pairs(a: F, b: F, hp: Any, shape: Sequence[int]) -> Iterator[Made]:
    """The same lengths of pairs, so another rotation: theirs is taken for right where only angles differ."""
    D = hp.head_dim
    if a.shape[1] % D or hp.rope.n_rot < 2:
        return
    n, least = hp.rope.n_rot, HOLDS * nmse(a, b)
    for words, first, second in (
        (f"pairs i and i + {n // 2}", np.arange(n // 2), np.arange(n // 2) + n // 2),
        ("pairs 2i and 2i + 1", np.arange(0, n, 2), np.arange(1, n, 2)),
        (f"pairs i and i + {D // 2}", np.arange(D // 2), np.arange(D // 2) + D // 2),
    ):
        x, y = (z.reshape(len(a), -1, D) for z in (a, b))
        lengths = [z[:, :, first] ** 2 + z[:, :, second] ** 2 for z in (x, y)]
        rest = np.setdiff1d(np.arange(D), np.concatenate([first, second]))
        if max(nmse(*lengths), nmse(x[:, :, rest], y[:, :, rest])) < max(least, ROUNDED):
            yield "rotation", f"theirs is ours with {words} rotated by other angles", b
