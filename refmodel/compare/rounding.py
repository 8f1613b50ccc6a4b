"""What another program rounds, found in its own numbers, and which of its operations that does not explain.

A program may keep its activations in bfloat16, its cache in half floats, or multiply 8-bit tokens. Each such class of rounding is
put into a run of ours that starts from the program's numbers wherever it has them. How far that run is from an exact one, tap by
tap, is what the class explains. The finest class is taken that explains every tap and whose rounding the program really shows: an
error far below a class's rounding, at some token, says that the program does not round so.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..arrays import F
from ..forward.numerics import Numerics
from ..forward.taps import in_call
from ..forward.trace import Spool, Trace
from ..machine.partial import temporary_folder
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from .allowances import FLOOR, OF_CLASSES
from .diff import LACKING, Anchored, has_draft, shows_scores
from .other_side import Other
from .rounding_classes import HALF_ULP, Rounding, classes
from .rows import AT_ONCE, Row, common_factor, compare, nmse_of, without_figures
from .verdict import EQUAL, EXPLAINED, WRONG, Verdict, judge, stem

T = TypeVar("T")
SHOWS = 0.01  # a program shows a class's rounding if at every token a quarter of its taps has an error of this part of it or more
QUARTER = 0.25
UNKNOWN = "a rounding that could not be found out"  # where no token is clean
LOOKED_AT = 1 << 16  # numbers of an array that are looked at for the precision that they were rounded to


class Standing:
    """A tapper that starts every operation from their numbers, and gives what of our tap theirs has to `take`.

    other    the recorded run
    perturb  (tap, our array) -> the array that a program which rounds might have
    input    the same for their numbers, where the dump was written in another precision than computed
    take     (key, our part, their part, tokens of the call)
    """

    def __init__(
        self,
        other: Other,
        take: Callable[[str, F, F, int], None],
        perturb: Callable[[str, F], F] = lambda name, x: x,
        input: Callable[[str, F], F] = lambda name, x: x,
    ) -> None:
        self.other, self.take, self.perturb, self.input = other, take, perturb, input
        self.anchored = Anchored(other.taps, "node", other.views)
        self.call = self.fresh = 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call, self.fresh = call, fresh
        self.anchored.begin(call, fresh)

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        shown = self.perturb(name, x)
        if key not in self.other.taps:
            return shown
        self.take(key, *self.pair(key, shown), self.fresh)
        after = self.anchored(name, x)
        return self.input(name, after) if after is not x else shown

    def pair(self, key: str, x: F) -> tuple[F, F]:
        """Our part of a tap and theirs. Where this call has another number of tokens, the last ones of both are compared."""
        view, theirs = self.other.views.get(key), self.other.taps[key]
        x = ending(x, self.fresh, len(self.other.calls[self.call]))
        return view.pair(x, theirs) if view else (x, theirs)


def ending(x: F, fresh: int, tokens: int) -> F:
    """The last `tokens` rows of x, which has a row for each of `fresh` tokens; zeros stand before where it has fewer."""
    if fresh == tokens or x.ndim < 2 or len(x) != fresh:
        return x
    missing = max(tokens - fresh, 0)
    return np.concatenate([np.zeros((missing, *x.shape[1:]), x.dtype), x[max(fresh - tokens, 0) :]])


def run(model: Model, route: Route, other: Other, num: Numerics, tapper: Standing, seen: Callable[[str], None]) -> None:
    """A pass over all calls with that tapper; `seen` is called with the numerics' name."""
    seen(num.name)
    session = model.session(route, num, tapper, has_draft(other.taps), shows_scores(other.taps))
    for _ in run_calls(session, other.calls, tapper, apart=other.apart):
        pass


@dataclass(frozen=True)
class Errors:
    """What a pass from their numbers leaves: a row for each tap, and the NMSE of each token of each tap.

    path  a trace with our part of every tap
    factors  of the taps whose numbers are ours times another number: that number
    """

    rows: Mapping[str, Row]
    tokens: Mapping[str, F]
    path: Path
    factors: Mapping[str, float]


def errors(model: Model, route: Route, other: Other, num: Numerics, path: Path, seen: Callable[[str], None]) -> Errors:
    """Compare every tap, from their numbers, under a numerics; our parts are kept in the file `path`."""
    rows, tokens, factors = dict[str, Row](), dict[str, F](), dict[str, float]()
    with Spool(path, {}) as spool:

        def take(key: str, ours: F, theirs: F, fresh: int) -> None:
            view = other.views.get(key)
            a, b = view.settled(ours, theirs) if view else (ours, theirs)
            rows[key] = compare(key, a, b)
            if not rows[key].problem:
                tokens[key] = by_token(a, b.reshape(a.shape), fresh)
                spool.add(key, ours)
                if rows[key].nmse > FLOOR and (factor := common_factor(a, b)) != 1:
                    factors[key] = factor

        run(model, route, other, num, Standing(other, take), seen)
    for name in other.taps:
        rows.setdefault(name, without_figures(name, (), 0, LACKING))
    return Errors(rows, tokens, path, factors)


def noise(model: Model, route: Route, other: Other, how: Rounding, exact: Errors, seen: Callable[[str], None]) -> Mapping[str, F]:
    """What a class of rounding makes of the same pass: tap -> NMSE of each token against the exact pass."""
    found: dict[str, F] = {}
    kept = Trace(exact.path)

    def take(key: str, ours: F, theirs: F, fresh: int) -> None:
        if key in kept:
            found[key] = by_token(ours, kept[key], fresh)

    run(model, route, other, how.rounds, Standing(other, take, *perturbations(how, other)), seen)
    return found


def perturbations(how: Rounding, other: Other) -> tuple[Callable[[str, F], F], Callable[[str, F], F]]:
    """What makes rounding errors as a class and the writing of a dump do: at each tap of ours, and where a tap of theirs is read.

    A program goes on with what it computed, not with what it wrote. But where few arrays have few bits, it is not the dump that was
    written so: the program keeps them so, and goes on with them.
    """
    written = 2 * len(other.bits) > len(other.taps)

    def stored(name: str) -> float:
        return HALF_ULP[other.bits.get(name, 24)]

    def perturb(name: str, x: F) -> F:
        return shaken(name, x, max(how.half_ulp(name), stored(name)), 1)

    def read(name: str, x: F) -> F:
        return shaken(name, x, stored(name) if written and (how.bits == 24 or how.blocks) else 0.0, 2)

    return perturb, read


def shaken(name: str, x: F, relative: float, draw: int) -> F:
    """x with errors as rounding makes them: each number is changed by up to that part of itself, the same for the same name."""
    if not relative:
        return x
    r, out = np.random.default_rng([zlib.crc32(name.encode()), draw]), np.empty(x.size, x.dtype)
    for start in range(0, x.size, AT_ONCE):
        some = x.reshape(-1)[start : start + AT_ONCE]
        out[start : start + AT_ONCE] = some * (1 + relative * r.uniform(-1, 1, some.shape))
    return out.reshape(x.shape)


def by_token(a: F, b: F, fresh: int) -> F:
    """NMSE of each token [k] where the first axis is that of tokens; else one number [1]."""
    rows = len(a) if a.ndim > 1 and len(a) <= fresh else 1
    pairs = zip(a.reshape(rows, -1), b.reshape(rows, -1), strict=True)
    return np.array([nmse_of(p.astype(np.float64), q.astype(np.float64)) for p, q in pairs])


def verdict_of(model: Model, route: Route, other: Other, seen: Callable[[str], None]) -> Verdict:
    """The verdict on a recorded run. What rounds is found out where that is not known and what is known does not explain it."""
    if other.places:
        return judged(model, route, other, seen)
    verdict = judge(model, route, other, seen)
    if not verdict.first or other.operations:
        return verdict
    bits = {tap: few for tap, x in other.taps.items() if (few := significant_bits(x)) < 24}
    found = judged(model, route, replace(other, bits=bits), seen)
    return verdict if found.first else found


def significant_bits(x: F) -> int:
    """How many significant bits the numbers of an array have: 11 or 8 if all fit into float16 or bfloat16, else 53."""
    part = np.asarray(x).ravel()[:LOOKED_AT].astype(np.float64)
    mantissa = np.frexp(part[np.isfinite(part)])[0]
    for few in (8, 11):
        scaled = mantissa * 2.0**few
        if mantissa.any() and (scaled == np.round(scaled)).all():
            return few
    return 53


def judged(model: Model, route: Route, other: Other, seen: Callable[[str], None]) -> Verdict:
    """The verdict on a dump of unknown rounding: the finest class of rounding that explains it, and what that does not explain.

    `seen` is called with what is computed.
    """
    with temporary_folder() as folder:
        measured: dict[str, Errors] = {}
        tried: list[tuple[Verdict, float]] = []
        for how in classes(other.arithmetic, model.arch.FACTS.gelu):
            if how.exact.name not in measured:
                path = folder / f"{len(measured)}.safetensors"
                measured[how.exact.name] = errors(model, route, other, how.exact, path, seen)
            exact = measured[how.exact.name]
            if all(not row.differ and not row.problem for row in exact.rows.values()):
                return Verdict(EQUAL, how.exact, exact.rows, None, how.name)
            level = noise(model, route, other, how, exact, seen)
            verdict, shown = verdict_under(how, exact, level, other), lowest(exact.tokens, level)
            if verdict.word == EXPLAINED and (not tried or shown >= SHOWS):
                return verdict
            tried.append((verdict, shown))
    return chosen(tried)


def chosen(tried: Sequence[tuple[Verdict, float]]) -> Verdict:
    """The verdict of the class that a run with something wrong rounds by; of no class if it shows the rounding of none."""
    return of_shown(tried, wrong) or replace(min(tried, key=lambda pair: pair[1])[0], rounds=UNKNOWN)


def of_shown(tried: Sequence[tuple[T, float]], wrong: Callable[[T], int]) -> T | None:
    """What was found under the finest class whose rounding explains the cleanest token; None if no class's does.

    A coarser one is taken if the run shows its rounding and it leaves at most half as many taps: what it rounds is not wrong.

    tried  (what was found, how much of the class's rounding the run shows), the finest class first
    wrong  how many taps a finding leaves unexplained
    """
    found = [(one, shown) for one, shown in tried if shown <= OF_CLASSES]
    best = found[0][0] if found else None
    for one, shown in found[1:]:
        if best is not None and shown >= SHOWS and 2 * wrong(one) <= wrong(best):
            best = one
    return best


def wrong(verdict: Verdict) -> int:
    """How many taps a verdict leaves unexplained."""
    return sum(not row.within for row in verdict.rows.values())


def verdict_under(how: Rounding, exact: Errors, level: Mapping[str, F], other: Other) -> Verdict:
    """What one class of rounding leaves unexplained. Of all positions and calls the largest rounding counts; a factor is none."""
    most: dict[str, float] = {}
    for name, values in level.items():
        finite = values[np.isfinite(values)]
        most[stem(name)] = max(most.get(stem(name), 0.0), float(finite.mean()) if finite.size else 0.0)
    rows = {
        name: replace(row, allowed=FLOOR + (0.0 if name in exact.factors else times(how, name, other) * most.get(stem(name), 0.0)))
        for name, row in exact.rows.items()
    }
    first = next((row for row in rows.values() if not row.within), None)
    return Verdict(WRONG if first else EXPLAINED, how.exact, rows, first, how.name + in_file(other))


def times(how: Rounding, tap: str, other: Other) -> float:
    """How many times the measured rounding is allowed at a tap; less where most of it is that of the numbers in the dump."""
    return min(how.factor, OF_CLASSES) if other.bits.get(tap, 24) < 24 else how.factor


def in_file(other: Other) -> str:
    """What the dump's numbers were rounded to when they were written, in words; empty for float32."""
    words = {11: ", written as f16", 8: ", written as bf16"}
    return words.get(min(other.bits.values(), default=24), "")


def lowest(tokens: Mapping[str, F], level: Mapping[str, F]) -> float:
    """How much of a class's rounding the cleanest token of the program shows: the smallest quartile over taps of error / rounding.

    Of few taps it is the least. Taps at which the class rounds nothing, as embeddings, say nothing; nor do logits next to other
    taps, as many programs that round keep the head in floats.
    """
    ratios: dict[tuple[int, int], list[float]] = {}
    inner = {name: errors for name, errors in tokens.items() if not name.startswith("result_output")}
    for name, errors in (inner or tokens).items():
        _, _, call = name.partition("@")
        for token, (lost, rounding) in enumerate(zip(errors, level.get(name, ()))):
            if rounding > 1e-30:
                ratios.setdefault((int(call or 0), token - len(errors)), []).append(float(lost / rounding))
    return min((float(np.quantile(values, QUARTER, method="lower")) for values in ratios.values()), default=0.0)
