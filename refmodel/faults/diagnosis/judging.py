"""Whether rounding explains what a run leaves: diff's classes of rounding, for an engine that may have faults, on some blocks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ...arrays import F
from ...compare.allowances import FLOOR
from ...compare.other_side import Other
from ...compare.rounding import SHOWS, by_token, lowest, of_shown, perturbations, times
from ...compare.rounding_classes import Rounding, classes, halves, through
from ...compare.rows import as_bits
from ...compare.verdict import stem
from ...forward.numerics import Numerics
from ...model.route import Route
from ...numerics import LLAMACPP, REFERENCE
from ...ops.ggml_paths import PATHS
from ..fault import Engine
from .running import Reach, Round, Seen, as_computed, run

Make = Callable[[Numerics], Engine]
"""The engine of a hypothesis under a numerics: the faults are put in anew each time, because some of them keep states."""
EQUAL, FINE, COARSE, WRONG = "equal", "fine", "coarse", "wrong"
LEAST = 1e-13  # NMSE that two float32 runs differ by at least


@dataclass(frozen=True)
class Judged:
    """What is left of a run, and what rounding explains of it.

    word     EQUAL bits; explained by a FINE class (float32, or the arithmetic that is known), or by a COARSE one; WRONG
    rounds   the class in words
    numerics under which it was compared
    seen     the run
    allowed  tap -> the largest NMSE that rounding explains
    noise    tap -> the NMSE that rounding was measured to make
    floor    the same of the finest class, float32
    """

    word: str
    rounds: str
    numerics: Numerics
    seen: Seen
    allowed: Mapping[str, float]
    noise: Mapping[str, float]
    floor: Mapping[str, float] = field(default_factory=dict)

    def extended(self, everywhere: Seen) -> "Judged":
        """The same for a run of all blocks, of which this has some: rounding is as large in the others, operation by operation."""
        most, noise, floor = (by_stem(x) for x in (self.allowed, self.noise, self.floor))
        seen = self.seen.over(everywhere)
        found = replace(
            self,
            seen=seen,
            allowed={tap: most.get(stem(tap), FLOOR) for tap in seen.nmse},
            noise={tap: noise.get(stem(tap), LEAST) for tap in seen.nmse},
            floor={tap: floor.get(stem(tap), LEAST) for tap in seen.nmse},
        )
        return replace(found, word=WRONG) if found.wrong else found

    @property
    def wrong(self) -> list[str]:
        """The taps that rounding does not explain, in the order of the pass."""
        return [tap for tap, nmse in self.seen.nmse.items() if not nmse <= self.allowed.get(tap, FLOOR)]


def judge(make: Make, route: Route, other: Other, what: Reach, healthy: Seen | None = None, coarsest: str = "") -> Judged:
    """Judge an engine by the finest class of rounding that explains the other side, as compare.rounding judges a healthy one.

    make     the engine under a numerics
    what     the blocks that run
    healthy  the healthy run, see running.run; None if this one is
    coarsest the name of the last class that is tried; all are for ""
    """
    tried: list[tuple[Judged, float]] = []
    runs: dict[str, tuple[Seen, Mapping[str, F]]] = {}
    floor: Mapping[str, float] = {}
    for number, how in enumerate(classes(other.arithmetic, make(REFERENCE).model.arch.FACTS.gelu)):
        if how.exact.name not in runs:
            seen = run(make(how.exact), route, other, what, healthy)
            runs[how.exact.name] = seen, errors_by_token(seen, other)
        exact, tokens = runs[how.exact.name]
        if same_bits(exact, other):
            none = dict.fromkeys(exact.nmse, LEAST)
            return Judged(EQUAL, how.name, how.exact, exact, dict.fromkeys(exact.nmse, FLOOR), none, none)
        level = rounding(make, route, other, what, healthy, how, exact)
        found = under(how, exact, level, number <= (other.arithmetic is not REFERENCE), other)
        floor = floor or found.noise
        found = replace(found, floor=floor)
        shown = lowest(tokens, level)
        if found.word != WRONG and (not tried or shown >= SHOWS):
            return found
        tried.append((found, shown))
        if how.name == coarsest:
            break
    best = of_shown(tried, lambda judged: len(judged.wrong)) or min(tried, key=lambda pair: pair[1])[0]
    return replace(best, word=WRONG)


def under(how: Rounding, exact: Seen, level: Mapping[str, F], fine: bool, other: Other) -> Judged:
    """What one class of rounding explains. Of all positions and calls the largest rounding counts."""
    most: dict[str, float] = {}
    for tap, values in level.items():
        finite = values[np.isfinite(values)]
        most[stem(tap)] = max(most.get(stem(tap), 0.0), float(finite.mean()) if finite.size else 0.0)
    allowed = {tap: times(how, tap, other) * most.get(stem(tap), 0.0) + FLOOR for tap in exact.nmse}
    noise = {tap: max(most.get(stem(tap), 0.0), LEAST) for tap in exact.nmse}
    word = FINE if fine else COARSE
    found = Judged(word, how.name, how.exact, exact, allowed, noise)
    return replace(found, word=WRONG) if found.wrong else found


def rounding(
    make: Make, route: Route, other: Other, what: Reach, healthy: Seen | None, how: Rounding, exact: Seen
) -> Mapping[str, F]:
    """What a class of rounding makes of the same pass: tap -> NMSE of each token against the exact pass."""

    rounds, reads = perturbations(how, other)
    rounded = run(make(how.rounds), route, other, what, healthy or exact, rounds, reads=reads)
    return {
        tap: by_token(x, exact.ours[tap], fresh_of(other, tap))
        for tap, x in rounded.ours.items()
        if tap in exact.ours and x.shape == exact.ours[tap].shape
    }


def errors_by_token(seen: Seen, other: Other) -> Mapping[str, F]:
    """The NMSE of each token of each tap, ours against theirs."""
    out = {}
    for tap, ours in seen.ours.items():
        theirs = other.taps[tap]
        view = other.views.get(tap)
        if np.isfinite(seen.nmse[tap]) and theirs.size == ours.size:
            a, b = view.settled(ours, theirs.reshape(ours.shape)) if view else (ours, theirs.reshape(ours.shape))
            out[tap] = by_token(a, b, fresh_of(other, tap))
    return out


def same_bits(seen: Seen, other: Other) -> bool:
    """Whether every tap has the other side's bits."""
    return all(x.size == other.taps[tap].size and (as_bits(x) == as_bits(other.taps[tap])).all() for tap, x in seen.ours.items())


def by_stem(values: Mapping[str, float]) -> dict[str, float]:
    """The largest value of each operation, at whatever position and call."""
    out: dict[str, float] = {}
    for tap, value in values.items():
        out[stem(tap)] = max(out.get(stem(tap), 0.0), value)
    return out


def fresh_of(other: Other, tap: str) -> int:
    """The tokens of the call of a tap."""
    return len(other.calls[int(tap.partition("@")[2] or 0)])


def arithmetics(engine: Engine, other: Other) -> Iterator[tuple[str, Numerics, Round]]:
    """The ways in which the other side may compute, to tell faults apart by: (in words, the numerics, what it rounds taps to).

    Nearer to the other side's own arithmetic a smaller fault can be seen.
    """
    if other.arithmetic is not REFERENCE:
        yield other.arithmetic.name, other.arithmetic, as_computed
    yield "float32", REFERENCE, as_computed
    if any(w.type in PATHS for w in engine.model.weights.values()) and not other.arithmetic.emulates:
        yield "llama.cpp's arithmetic", LLAMACPP, as_computed
    for words, numerics in halves(engine.model.arch.FACTS.gelu):
        yield words, numerics, as_computed
    for words, bits in (("f16 activations", 11), ("bf16 activations", 8)):
        yield words, replace(REFERENCE, store=partial(through, bits=bits)), partial(rounded_to, bits=bits)


def rounded_to(name: str, x: F, bits: int) -> F:
    """An array rounded to that many significant bits."""
    return through(x, bits)
