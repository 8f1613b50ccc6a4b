"""The hypotheses: each fault of the library, and pairs of them, put into an engine and run next to the other side's numbers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from ...compare.verdict import stem
from ...compare.where import block_of
from ...forward.numerics import Numerics
from ...model.model import Model
from ...model.route import Route
from ..altered import touched
from ..fault import Engine, Fault, with_all
from ..sites import GROUPS, OUTSIDE
from .judging import Judged
from .running import Reach, Round, Seen, as_computed, embeds, given, reach, run, union
from .scoring import Scale, Score, score
from .span import Span

BLOCKS = 2  # of each kind that are looked at first
MOST_PAIRS, FEWEST_PAIRS = 400, 16
A_SECOND = 80  # pairs, where a single fault explains the numbers but for what coarse rounding may be
WORK = 2e10  # weights times tokens that pairs may take in all
FULL = 24  # significant bits of float32
LESS = 10.0  # times: what a fault of the head must leave less of what looks like noise
EXACT = 1e-9  # NMSE that is left where the arithmetic is known, or almost
SMALL = 2e8  # weights times tokens of a model whose blocks are all looked at


@dataclass(frozen=True)
class Hypothesis:
    """Faults, and what a run with them leaves. No faults: the healthy run."""

    faults: tuple[Fault, ...]
    score: Score
    seen: Seen

    @property
    def names(self) -> tuple[str, ...]:
        """The faults' own names."""
        return tuple(fault.name for fault in self.faults)


@dataclass
class Search:
    """A search among faults under one arithmetic.

    chosen   the blocks that are looked at
    scale    what is explained without a fault
    healthy  the healthy run of everything
    seen     called with what is being tried
    rounds   what the other side rounds taps to
    words    the arithmetic, in words
    coarsest the coarsest class of rounding that the other side may have, see judging.judge
    """

    model: Model
    route: Route
    other: Other
    numerics: Numerics
    chosen: tuple[int, ...]
    scale: Scale
    healthy: Seen
    seen: Callable[[str], None]
    rounds: Round = as_computed
    words: str = "float32"
    coarsest: str = ""
    tried: dict[tuple[str, ...], Hypothesis] = field(default_factory=dict)

    def engine(self, faults: Sequence[Fault]) -> Engine | None:
        """A new engine with these faults; None if one of them makes no difference to the model."""
        return with_all(faults, Engine(self.model, self.numerics))

    def typical(self) -> float:
        """The median over taps of log10(NMSE / noise) of the healthy run: what its arithmetic leaves where nothing is wrong."""
        pairs = [(nmse, self.scale.noise[tap]) for tap, nmse in self.healthy.nmse.items() if tap in self.scale.noise]
        return float(np.median([np.log10(max(min(nmse, 1e6) / noise, 1.0)) for nmse, noise in pairs])) if pairs else 0.0

    def healthy_explains(self, faults: Sequence[Fault]) -> bool:
        """Whether the healthy run leaves almost nothing under this arithmetic, which rounding explains besides; or noise only.

        What one of the faults explains that change the head is not noise, though it looks like it.
        """
        if all(nmse <= min(EXACT, self.scale.allowed.get(tap, EXACT)) for tap, nmse in self.healthy.nmse.items()):
            return True
        healthy = self.ask(())
        if healthy is None or not healthy.score.white:
            return False
        heads = [self.ask([fault]) for fault in faults if "logits" in fault.at]
        return not any(found and LESS * found.score.outside < healthy.score.outside for found in heads)

    def reach(self, faults: Sequence[Fault], chosen: Iterable[int] | None) -> Reach:
        """What has to run to see these faults."""
        plain = Engine(self.model, self.numerics)
        return union([reach(fault, plain, self.route, self.other, chosen) for fault in faults])

    def ask(self, faults: Sequence[Fault], everywhere: bool = False) -> Hypothesis | None:
        """Run with these faults; None if one of them makes no difference to the model.

        everywhere  in all blocks, not only in the chosen ones
        """
        key = (*(fault.name for fault in faults), "*" * everywhere)
        if key not in self.tried:
            engine = self.engine(faults)
            if engine is None:
                return None
            self.seen(" and ".join(fault.name for fault in faults) or "no fault")
            what = self.reach(faults, None if everywhere else self.chosen) if faults else Reach((), False)
            seen = run(engine, self.route, self.other, what, self.healthy, self.rounds).over(self.healthy)
            self.tried[key] = Hypothesis(tuple(faults), score(seen, self.scale, None if everywhere else self.taps()), seen)
        return self.tried[key]

    def taps(self) -> list[str]:
        """The taps that are scored: those of the chosen blocks, and those outside of blocks."""
        return [tap for tap in self.scale.allowed if (block := block_of(tap)) is None or block in self.chosen]

    def singles(self, faults: Sequence[Fault]) -> list[Hypothesis]:
        """A hypothesis for each fault that fits, the best first."""
        return ranked([found for fault in faults if (found := self.ask([fault])) is not None])

    def pairs(self, singles: Sequence[Hypothesis], most: int) -> list[Hypothesis]:
        """Hypotheses of at most so many pairs of faults, the best first.

        Those are tried that add up best to the other side's numbers, until one explains them.
        """
        found = list[Hypothesis]()
        for a, b in self.promising([h for h in singles if not h.faults[0].placebo])[:most]:
            one = self.ask((a, b)) or self.ask((b, a))
            if one is None:
                continue
            found.append(one)
            if one.score.explains:
                break
        return ranked(found)

    def promising(self, singles: Sequence[Hypothesis]) -> list[tuple[Fault, Fault]]:
        """Pairs of faults in the order in which they are worth a run, as many as the model's size allows.

        The effects of two faults nearly add up where both are small, so pairs are sorted by what is left if they did. A fault that
        is large by itself distorts the other: each of the best single ones is tried with all others too.
        """
        if len(singles) < 2:
            return []
        target = self.vector(self.healthy, theirs=True)
        effects = np.array([self.vector(h.seen, theirs=False) - self.vector(self.healthy, theirs=False) for h in singles])
        missing = target - self.vector(self.healthy, theirs=False)
        gram, along = effects @ effects.T, effects @ missing
        left = {
            (i, j): gram[i, i] + gram[j, j] + 2 * gram[i, j] - 2 * along[i] - 2 * along[j]
            for i, j in combinations(range(len(singles)), 2)
        }
        of_best = [(i, j) for i, j in left if i < 3]
        order = sorted(left, key=lambda pair: left[pair])
        mixed = [pair for both in zip(order, [*of_best, *order], strict=False) for pair in both]
        chosen = list(dict.fromkeys([*mixed, *order]))[: self.budget()]
        return [(singles[i].faults[0], singles[j].faults[0]) for i, j in chosen]

    def budget(self) -> int:
        """How many pairs are tried, by the size of what runs."""
        return int(np.clip(WORK / max(work(self.model, self.other), 1), FEWEST_PAIRS, MOST_PAIRS))

    def vector(self, seen: Seen, theirs: bool) -> F:
        """The numbers that are compared, theirs or a run's, as one vector; each tap in units of its noise or its size.

        Where a run has another number of tokens, the healthy one's numbers are taken: such effects do not add up with others. Where
        theirs have another size, ours are taken.
        """
        parts = []
        for tap in self.taps():
            if tap not in self.healthy.ours:
                continue
            healthy = self.healthy.ours[tap]
            ours = seen.ours.get(tap, healthy)
            ours = ours if ours.shape == healthy.shape else healthy
            whole = self.other.taps[tap]
            x = whole.reshape(ours.shape) if theirs and whole.size == ours.size else ours
            part = compressed(x, tap, self.scale.span)
            parts.append(part / max(float(np.linalg.norm(compressed(self.healthy.ours[tap], tap, self.scale.span))), 1e-30))
        x = np.concatenate(parts) if parts else np.zeros(1)
        return np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def compressed(x: F, tap: str, span: Span | None) -> F:
    """A tap's numbers, at most some thousands of them: logits as what the head read, others every so many."""
    if span and tap.startswith("result_output") and x.ndim == 2:
        return (span.of(x) @ span.basis).ravel()
    flat = x.reshape(-1).astype(np.float64)
    return flat[:: max(1, flat.size // 4096)]


def ranked(found: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Hypotheses, the one that leaves least first."""
    return sorted(found, key=lambda h: (not h.score.explains, h.score.cost, h.score.residual))


def work(model: Model, other: Other) -> float:
    """Weights times tokens of a whole pass."""
    weights = sum(float(np.prod(w.shape)) for w in model.weights.values())
    return weights * sum(map(len, other.calls))


def small(model: Model, other: Other) -> bool:
    """Whether a pass takes no time that is worth saving."""
    return work(model, other) < SMALL


def first_blocks(model: Model, route: Route, nmse: dict[str, float] | None = None) -> tuple[int, ...]:
    """Some blocks of each kind: the first, the one that differs most, and the last whose output was not recorded."""
    chosen = set[int]()
    kinds = [model.kinds[source] for source in route.layers]
    for kind in dict.fromkeys(kinds):
        here = [p for p, found in enumerate(kinds) if found == kind]
        worst = sorted(here, key=lambda p: -(nmse or {}).get(f"l_out-{p}", 0.0))
        unrecorded = [p for p in here if f"l_out-{p}" not in (nmse or {})]
        chosen |= {*[here[0], *worst][:BLOCKS], *unrecorded[-1:]}
    return tuple(sorted(chosen))


def fitting(faults: Iterable[Fault], model: Model, route: Route, other: Other, judged: Judged) -> list[Fault]:
    """The faults that touch something that is wrong: a kind of blocks with wrong taps, and, in a full trace, a wrong tap.

    A tap also shows the faults of blocks before it whose outputs were not recorded, whatever they touch.
    """
    wrong = judged.wrong
    if not wrong:
        return list(faults)
    free = not any(block_of(tap) is not None for tap in other.taps)
    fed = any(remark.code == "positions" for remark in other.remarks)  # another number of tokens
    unseen = {group for tap in wrong for group in unrecorded(tap, model, route, other)}
    groups = unseen | {place(tap, model, route) for tap in wrong}
    wrong_stems, stems = {stem(tap) for tap in wrong} | coarser(other), {stem(tap) for tap in other.taps}
    out = []
    for fault in faults:
        here = touched(model, fault.at)
        taps = {tap for group in here.values() for tap in group}
        shows = unseen & set(here) or not taps & stems or taps & wrong_stems
        if free or not here or (fed and embeds(here)) or (groups & set(here) and shows):
            out.append(fault)
    return out


def coarser(other: Other) -> set[str]:
    """The stems of taps that were rounded to fewer bits than the others: what they keep may be the fault."""
    few = {stem(tap): other.bits.get(tap, FULL) for tap in other.taps}
    most = max(few.values(), default=FULL)
    return {name for name, bits in few.items() if bits < most}


def place(tap: str, model: Model, route: Route) -> str:
    """The kind of place of a tap: of its block, or outside of blocks."""
    position = block_of(tap)
    return OUTSIDE if position is None else GROUPS[model.kinds[route.layers[position]]]


def unrecorded(tap: str, model: Model, route: Route, other: Other) -> set[str]:
    """The kinds of the blocks before a tap, back to the last one whose output the other side recorded in every call."""
    position = block_of(tap)
    before = range(len(route.layers) if position is None else position)
    out = set[str]()
    for p in reversed(before):
        if all(given(other, p, call) for call in range(len(other.calls))):
            break
        out.add(GROUPS[model.kinds[route.layers[p]]])
    return out
