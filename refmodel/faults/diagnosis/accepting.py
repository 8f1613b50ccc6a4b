"""When a hypothesis is believed, and which others the numbers cannot tell from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...compare.verdict import stem
from ...compare.where import block_of
from ...forward.numerics import Numerics
from ..fault import Engine, Fault, with_all
from .judging import COARSE, EQUAL, FINE, WRONG, Judged, judge
from .search import Hypothesis, Search

DROP = 3.0  # how many times less a hypothesis must leave than the healthy run, if what it leaves is no finer than coarse rounding
UNANCHORED = 30.0  # the same where only logits are there, in which all that is wrong comes together
CLEARLY = 10.0  # the same for a pair next to the better of its two
UNEVEN = 1e3  # times what the same tap of another block is off by
CLEAR = 100.0  # the same where coarse rounding explains the healthy run as well


@dataclass(frozen=True)
class Answer:
    """A hypothesis that explains the other side.

    faults   the fault, or the pair
    same_as  others that leave as little: on this input they cannot be told from it
    before   mean NMSE of what is compared, without the faults
    after    the same with them
    blocks   position -> NMSE of its output, or of the worst of its taps: before and after
    rounds   how the other side computes, in words
    sure     in words
    """

    faults: tuple[Fault, ...]
    same_as: tuple[tuple[Fault, ...], ...]
    before: float
    after: float
    blocks: dict[int, tuple[float, float]]
    rounds: str
    sure: str


def accepted(search: Search, found: Sequence[Hypothesis], healthy: Judged) -> Hypothesis | None:
    """The best hypothesis if it explains the other side, judged as diff judges a healthy run; None if it does not."""
    if not found:
        return None
    best = found[0]
    before, after = gain(search, best)
    plain = search.ask(())
    if plain is None or alike_to(search, plain, best):
        return None  # it changes nothing
    if best.score.white:
        return best
    if healthy.word == COARSE and after * CLEAR > before:
        return None
    judged = judged_with(search, best)
    shown = [tap for tap in search.taps() if np.isfinite(search.other.taps[tap]).all()]  # what overflows follows from what did
    if any(tap not in judged.seen.nmse for tap in healthy.wrong if tap in shown):
        return None  # something is wrong that these faults do not reach
    if judged.word == WRONG:
        return best if after * 1e6 < before and exactly(search, best) else None
    if healthy.word == COARSE and judged.word not in (EQUAL, FINE):
        return best if exactly(search, best) else None
    if judged.word not in (EQUAL, FINE) and uneven(search, best):
        return None
    drop = DROP if search.scale.span is None else UNANCHORED
    return best if judged.word in (EQUAL, FINE) or after * drop < before else None


def settled(search: Search, best: Hypothesis) -> bool:
    """Whether nothing is left of what a hypothesis explains but noise, or what float32 makes."""
    return best.score.white or judged_with(search, best).word in (EQUAL, FINE)


def uneven(search: Search, best: Hypothesis) -> bool:
    """Whether a hypothesis leaves far more at a tap than the healthy run does at the same tap of another block of the same kind.

    A program rounds alike there, so what is left is no rounding of its own.
    """
    kinds, layers = search.model.kinds, search.route.layers
    clean: dict[tuple[str, str], float] = {}
    for tap, nmse in search.healthy.nmse.items():
        block = block_of(tap)
        if block is not None and nmse <= search.scale.allowed.get(tap, 0.0):
            place = stem(tap), kinds[layers[block]]
            clean[place] = max(clean.get(place, 0.0), nmse, search.scale.noise.get(tap, 0.0))
    for tap, nmse in best.seen.nmse.items():
        block = block_of(tap)
        if block is not None and nmse > UNEVEN * clean.get((stem(tap), kinds[layers[block]]), np.inf):
            return True
    return False


def exactly(search: Search, best: Hypothesis) -> bool:
    """Whether a hypothesis leaves almost nothing under the arithmetic that it was tried with."""
    return all(nmse <= 1e-9 for tap, nmse in best.seen.nmse.items() if tap in search.taps())


def judged_with(search: Search, best: Hypothesis) -> Judged:
    """What rounding explains of an engine with those faults, in the blocks that are looked at."""

    def make(num: Numerics) -> Engine:
        engine = with_all(best.faults, Engine(search.model, num))
        assert engine is not None
        return engine

    what = search.reach(best.faults, search.chosen)
    return judge(make, search.route, search.other, what, search.healthy, search.coarsest)


def gain(search: Search, best: Hypothesis) -> tuple[float, float]:
    """The mean NMSE, without and with the faults, of the taps that they change most."""
    healthy = search.ask(())
    assert healthy is not None
    taps = [tap for tap in search.taps() if tap in best.seen.nmse]
    pairs = [(min(healthy.seen.nmse[tap], 1e6), min(best.seen.nmse[tap], 1e6)) for tap in taps]
    if not pairs:
        return 0.0, 0.0
    before, after = (float(np.mean(x)) for x in zip(*pairs, strict=True))
    return before, after


def answers(search: Search, found: Sequence[Hypothesis], best: Hypothesis) -> list[Answer]:
    """The best hypothesis with those that cannot be told from it, then the next best."""
    alike = tuple(h.faults for h in found if h is not best and alike_to(search, h, best))
    everywhere = search.ask(best.faults, everywhere=True) or best
    before, after = gain(search, best)
    sure = (
        "no other fault of the library explains it"
        if not alike
        else f"it or {len(alike)} others: this input cannot tell them apart"
    )
    first = Answer(best.faults, alike, before, after, by_block(search, everywhere), search.words, sure)
    rest = [h for h in found if h is not best and h.faults not in alike][:3]
    return [first, *(Answer(h.faults, (), before, gain(search, h)[1], {}, search.words, "explains less") for h in rest)]


def alike_to(search: Search, other: Hypothesis, best: Hypothesis) -> bool:
    """Whether a hypothesis leaves no more than the best, but for what chance and float32 make of it."""
    a, b = other.score, best.score
    if np.isfinite(a.inside) and np.isfinite(b.inside):
        chance = 1 + 6 * np.sqrt(2 / b.freedom)
        tap = next(iter(search.scale.logits))
        floor = 4 * search.scale.noise[tap] * float(np.mean(np.square(search.scale.logits[tap])))
        return bool(a.inside <= max(b.inside, b.outside if b.white else 0.0) * chance or a.inside <= floor)
    E = search.model.hp.n_embd
    for tap in search.taps():
        if tap in best.seen.nmse and tap in other.seen.nmse:
            size = search.healthy.ours[tap].size if tap in search.healthy.ours else E
            most = max(best.seen.nmse[tap] * (1 + 6 * np.sqrt(2 / min(size, 64 * E))), 4 * search.scale.noise[tap])
            if not other.seen.nmse[tap] <= most:
                return False
    return True


def by_block(search: Search, best: Hypothesis) -> dict[int, tuple[float, float]]:
    """The worst tap of each block, without and with the faults."""
    out: dict[int, tuple[float, float]] = {}
    for tap, after in best.seen.nmse.items():
        block = block_of(tap)
        if block is not None:
            old = out.get(block, (0.0, 0.0))
            out[block] = max(old[0], search.healthy.nmse.get(tap, 0.0)), max(old[1], after)
    return out
