"""A pass of ours that looks for the arrays of a dump among our taps, and goes on with those that it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..arrays import F
from ..dumps.layouts import AS_IS, orders
from ..forward.taps import in_call
from .placing import CLEARLY, CLOSE, FAR, Place, Seen, arrangements, fit, placed
from .rows import ratio
from .verdict import stem

KEPT = 16  # tokens of a tap that are compared
SAME = 1e-12  # NMSE of two taps of ours that have the same numbers


@dataclass
class Candidate:
    """An array, and the best that was found for it: its place, our numbers there, and how well the best other tap fits."""

    own: str
    array: F
    place: Place | None = None
    seen: Seen | None = None
    rival: float = np.inf
    norm: float = 0.0

    @property
    def sure(self) -> bool:
        """Whether no other tap fits nearly as well."""
        return self.place is not None and self.rival > min(FAR, max(CLEARLY * self.place.fit, SAME))


@dataclass
class Finding:
    """A tapper that looks for the arrays of a dump among our taps, and goes on with those that it finds.

    hp      the model's Hparams
    arrays  of the dump
    fixed   tap -> the array that it was decided to be, with its place
    close   NMSE below which an array fits closely
    taps    what was kept of each tap, in the order of the pass
    taken   tap -> the array that it is
    """

    hp: object
    arrays: Sequence[Candidate]
    fixed: Mapping[str, tuple[Candidate, Place]]
    seen: Callable[[str], None]
    close: float = CLOSE
    taps: dict[str, Seen] = field(default_factory=dict)
    taken: dict[str, Candidate] = field(default_factory=dict)
    call: int = 0
    fresh: int = 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call, self.fresh = call, fresh

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        self.seen(key)
        seen = self.taps[key] = kept(x, self.fresh)
        if key in self.fixed:
            decided, theirs = self.fixed[key]
            return going_on(decided.array, theirs, seen, x)
        length, after = float(np.linalg.norm(x)), x
        settled = {id(candidate) for candidate, _ in self.fixed.values()}
        places = list[tuple[float, int, Place]]()
        for number, candidate in enumerate(self.arrays):
            whole = candidate.array.size == x.size
            if id(candidate) in settled or (whole and abs(candidate.norm - length) > np.sqrt(FAR) * length):
                continue
            place = found(candidate.array, key, seen, self.hp)
            if place and place.fit < FAR:
                places.append((place.fit, number, place))
        for _, number, best in sorted(places, key=lambda option: option[:2]):
            candidate = self.arrays[number]
            if self.better(candidate, best, seen) and key not in self.taken:
                self.taken[key] = candidate
                after = going_on(candidate.array, best, seen, x)
        return after

    def better(self, candidate: Candidate, place: Place, seen: Seen) -> bool:
        """Take note of a place; True if it is the candidate's best so far, and fits closely."""
        best = candidate.place
        if best is None:
            if place.fit < self.close:
                candidate.place, candidate.seen = place, seen
            else:
                candidate.rival = min(candidate.rival, place.fit)
            return place.fit < self.close
        assert candidate.seen is not None
        if alike(candidate.seen, seen) < SAME:
            return False  # the same numbers under another name
        part = best.count < candidate.seen.fresh and place.count == seen.fresh and place.fit <= max(4 * best.fit, SAME)
        if part or place.fit * 4 < best.fit:  # a whole tap rather than some tokens of another one with the same numbers
            self.taken.pop(best.tap, None)
            candidate.rival = candidate.rival if part else min(candidate.rival, best.fit)
            candidate.place, candidate.seen = place, seen
            return True
        candidate.rival = min(candidate.rival, place.fit)
        return False


def kept(x: F, fresh: int) -> Seen:
    """What is kept of a tap: its shape, and at most KEPT of its tokens."""
    by_token = bool(x.ndim) and x.shape[0] == fresh
    rows = np.unique(np.linspace(0, fresh - 1, min(fresh, KEPT)).astype(np.int64)) if by_token else np.zeros(1, np.int64)
    whole = x[rows] if by_token else x[None]
    return (
        Seen(x.shape, fresh, rows, whole.astype(np.float32)) if by_token else Seen((1, *x.shape), 1, rows, whole.astype(np.float32))
    )


def found(array: F, tap: str, seen: Seen, hp: object) -> Place | None:
    """The best place of an array under a tap, among all tokens that it may begin at; None if its size is wrong."""
    count, left = divmod(array.size, seen.width)
    if left or not 0 < count <= seen.fresh:
        return None
    places = [placed(array, array.shape, tap, seen, stem(tap), hp, first) for first in range(seen.fresh - count + 1)]
    known = [place for place in places if place is not None and np.isfinite(place.fit)]
    return min(known, key=lambda place: place.fit, default=None)


def going_on(array: F, place: Place, seen: Seen, x: F) -> F:
    """What the pass goes on with: their numbers, if all of the tap's are there and finite; else ours."""
    if place.count != seen.fresh or array.size != x.size or not np.isfinite(array).all():
        return x
    return place.arranged(array, seen).reshape(x.shape).astype(x.dtype)


def alike(a: Seen, b: Seen) -> float:
    """NMSE of what was kept of two taps; infinite for other sizes."""
    if a.kept.size != b.kept.size:
        return np.inf
    p, q = a.kept.astype(np.float64).ravel(), b.kept.astype(np.float64).ravel()
    return ratio(float((p - q) @ (p - q)), float(q @ q))


def directed(array: F, tap: str, seen: Seen, hp: object) -> tuple[float, Place | None]:
    """How much an array has the direction and the length of a tap, from 0 to 1, and the place where it has most of it."""
    best, chosen = 0.0, None
    count, left = divmod(array.size, seen.width)
    if left or not 0 < count <= seen.fresh or not np.isfinite(array).all():
        return best, chosen
    for axes, tokens in arrangements(array.shape, seen):
        for word, index in orders(stem(tap), seen.width, hp).items():
            plain = axes if axes != tuple(range(len(axes))) else ()
            place = Place(tap, plain, seen.fresh - tokens, tokens, word, index, np.nan)
            there = (at := seen.rows - place.first) >= 0
            a, b = seen.kept[there].astype(np.float64).ravel(), place.arranged(array, seen, at[there]).astype(np.float64).ravel()
            sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
            if not min(sizes):
                continue
            score = abs(float(a @ b)) / (sizes[0] * sizes[1]) * (min(sizes) / max(sizes)) ** 0.25
            if score > best + (0.05 if word != AS_IS and chosen else 0.0):
                best, chosen = score, replace(place, fit=fit(array, place, seen))
    return best, chosen
