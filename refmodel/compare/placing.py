"""Where the arrays of a dump belong in our pass: the tap of each, which tokens it has, and in which order its numbers are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import prod
from typing import Any

import numpy as np

from ..arrays import F, Ints
from ..dumps.layouts import AS_IS, orders
from ..dumps.names import BEFORE, BLOCK, EMBEDDED, STATES, Name
from ..forward.taps import in_call
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from ..numerics import REFERENCE
from .diff import shows_scores
from .rows import ratio, squeezed

SHOWN = 4  # tokens of each tap that are kept: the first two and the last two
CLOSE, FAR = 1e-3, 1e-2  # NMSE: of a right place with coarse rounding, of a wrong one. Between them nothing is decided
NONE = np.zeros(0, np.float32)  # an empty part of an array would keep the whole one
CLEARLY = 100.0  # how many times better another place must fit, to be taken


@dataclass(frozen=True)
class Seen:
    """What is kept of one of our taps.

    shape  of the whole
    fresh  tokens of its call
    rows   [k] which tokens are kept; none where the first axis is not that of the call's tokens
    kept   [k, ...] their numbers
    """

    shape: tuple[int, ...]
    fresh: int
    rows: Ints
    kept: F

    @property
    def width(self) -> int:
        """Numbers of a token; of the whole where the first axis is not that of tokens."""
        return prod(self.shape) // self.fresh if self.by_token else prod(self.shape)

    @property
    def by_token(self) -> bool:
        """Whether the first axis is that of the call's tokens."""
        return bool(self.shape) and self.shape[0] == self.fresh


@dataclass
class Probe:
    """A tapper that keeps the shape of each tap and some of its tokens."""

    taps: dict[str, Seen] = field(default_factory=dict)
    call: int = 0
    fresh: int = 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call, self.fresh = call, fresh

    def __call__(self, name: str, x: F) -> F:
        by_token = bool(x.ndim) and x.shape[0] == self.fresh
        rows = np.unique([0, min(1, self.fresh - 1), max(self.fresh - 2, 0), self.fresh - 1]) if by_token else np.zeros(0, np.int64)
        self.taps[in_call(name, self.call)] = Seen(x.shape, self.fresh, rows, x[rows].astype(np.float32) if by_token else NONE)
        return x


def probed(model: Model, route: Route, calls: Sequence[Sequence[int]], names: Sequence[str], apart: bool) -> Mapping[str, Seen]:
    """Our taps of a run, as `Probe` keeps them; attention's scores among them if `names` ask for those. `apart`: see run_calls."""
    probe = Probe()
    session = model.session(route, REFERENCE, probe, any(n.startswith("mtp_") for n in names), shows_scores(names))
    for _ in run_calls(session, calls, probe, apart=apart):
        pass
    return probe.taps


@dataclass(frozen=True)
class Place:
    """Where an array belongs.

    tap    with block and call
    axes   the order of its axes (those of length 1 left out) that puts tokens first
    first  our first token that it has; count  how many; skip  how many of theirs come before those
    order  the word of the order of its numbers, see dumps.layouts; index is that order
    fit    NMSE to our pass, of the tokens that are kept; NaN where none can be compared
    """

    tap: str
    axes: tuple[int, ...]
    first: int
    count: int
    order: str
    index: Ints | None
    fit: float
    skip: int = 0

    def arranged(self, x: F, ours: Seen, rows: Ints | None = None) -> F:
        """Their numbers as ours are arranged: the tokens that they have, or those of them that `rows` [k] says, tokens first."""
        x = x.reshape(squeezed(x.shape)).transpose(self.axes) if self.axes else x
        if not ours.by_token:
            return x.reshape(ours.shape) if x.size == prod(ours.shape) else x
        chosen = np.arange(self.count) if rows is None else rows
        x = x if x.ndim and x.shape[0] == self.skip + self.count and x.ndim > 1 else x.reshape(-1, ours.width)
        whole = rows is None and not self.skip and self.count == len(x)
        x = (x if whole else x[chosen + self.skip]).reshape(-1, ours.width)
        return (x if self.index is None else x[:, self.index]).reshape(len(x), *ours.shape[1:])

    def shifted(self, shift: int, fresh: int) -> "Place":
        """The place where their token t + shift is our token t, of `fresh` tokens; what has no partner is left out."""
        first = self.first - shift
        lost = max(0, -first), max(0, first + self.count - fresh)
        return replace(self, first=first + lost[0], skip=self.skip + lost[0], count=self.count - sum(lost))


def candidates(name: Name, ours: Mapping[str, Seen], n_position: int, shift: int = 0) -> list[str]:
    """The taps of ours that a foreign name may mean, the likeliest first.

    shift  added to the block's number, for programs that count from the embedding or from one
    """
    found: list[str] = []
    for stem in name.stems:
        taps = [tap for tap in taps_of(stem, name.block, n_position, shift) if in_call(tap, name.call) in ours]
        # what block 0 reads is the last of those, scaled if any is
        read = name.block is not None and taps[:1] and taps[0] in EMBEDDED
        found += [in_call(tap, name.call) for tap in (taps[:1] if read else taps)]
    return list(dict.fromkeys(found))


def taps_of(stem: str, block: int | None, n_position: int, shift: int) -> Iterator[str]:
    """The taps of a stem at a block, in the first call."""
    if block is None:
        yield stem
        return
    number = block + shift - (stem in (BEFORE, STATES))
    if stem == STATES and number == n_position - 1:
        yield "result_norm"  # transformers norms the last one
    if stem in (BLOCK, BEFORE, STATES) and number == -1:
        yield from EMBEDDED
    stem, _, count = (BLOCK if stem in (BEFORE, STATES) else stem).partition("#")
    yield f"{stem}-{number}#{count}" if count else f"{stem}-{number}"


def arrangements(shape: Sequence[int], ours: Seen) -> Iterator[tuple[tuple[int, ...], int]]:
    """(axes, tokens) of every way to see an array of that shape as tokens of a tap; none if its size is not that of tokens."""
    there, width = squeezed(shape), ours.width
    if not ours.by_token:
        if prod(there) == width:
            yield from (
                (axes, 0) for axes in permutations(range(len(there))) if [there[a] for a in axes] == list(squeezed(ours.shape))
            )
        return
    count, left = divmod(prod(there), width) if width else (0, 1)
    if left or not count:
        return
    if len(there) == 1:  # without a shape: rows in order
        yield (0,), count
        return
    wanted, fits = squeezed(ours.shape[1:]), False
    for axes in permutations(range(len(there))) if len(there) <= 4 else [tuple(range(len(there)))]:
        turned = [there[a] for a in axes]
        body = tuple(turned[1:]) if count > 1 else tuple(turned)
        if count > 1 and (not turned or turned[0] != count):
            continue
        as_is = axes == tuple(sorted(axes)) or len(body) == 1
        if body == wanted or (as_is and prod(body) == width):
            fits = True
            yield axes, count
    if not fits and count > 1 and there[0] % count == 0:  # [T*H, D]: the heads of a token in rows of their own
        yield tuple(range(len(there))), count


def placed(array: F, shape: Sequence[int], tap: str, ours: Seen, stem: str, hp: Any, first: int | None = None) -> Place | None:
    """The best place of an array under a tap: as it is, unless another arrangement fits clearly better. None if its size is wrong.

    first  our first token that it has; None for the last ones, or all
    """
    best: Place | None = None
    for axes, count in arrangements(shape, ours):
        if count > ours.fresh and ours.by_token:
            continue
        start = ours.fresh - count if first is None else first
        for word, index in (orders(stem, ours.width, hp) if ours.by_token else {AS_IS: None}).items():
            plain = axes if axes != tuple(range(len(axes))) else ()
            one = Place(tap, plain, start if ours.by_token else 0, count, word, index, np.nan)
            one = replace(one, fit=fit(array, one, ours))
            if best is None or (best.fit > CLOSE and one.fit * CLEARLY < best.fit):
                best = one
    return best


def fit(array: F, place: Place, ours: Seen, shift: int = 0) -> float:
    """NMSE between an array at a place and our pass, of the tokens that are kept; NaN where none can be compared.

    shift  compare our token t with their token t + shift
    """
    if not ours.by_token or not len(ours.rows):
        return float("nan")
    at = ours.rows - place.first + shift
    there = (at >= 0) & (at < place.count)
    if not there.any():
        return float("nan")
    a, b = ours.kept[there].astype(np.float64), place.arranged(array, ours, at[there]).astype(np.float64)
    if not np.isfinite(b).all():
        return float("inf")
    return ratio(float(((a - b) ** 2).sum()), float((a * a).sum()))
