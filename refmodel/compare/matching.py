"""Which of our taps the arrays of a dump are, found by their numbers: names are not asked.

Our pass runs, and where an array fits a tap closely, the pass goes on with the array: so a fault in the middle leaves what comes
after it close, too. What fits nothing closely is matched by its size, its direction and the kinds of taps that the dump has; the
pass then runs again from there.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F
from ..dumps.dump import Dump, Numbers
from ..dumps.layouts import AS_IS
from ..dumps.map_file import Rule, together
from ..errors import DumpError
from ..model.model import Model
from ..model.route import Route
from ..model.session import checked_tokens, run_calls
from ..numerics import REFERENCE
from .finding import Candidate, Finding, directed
from .placing import CLOSE, Place, Seen
from .verdict import stem

SURE, LIKELY, GUESS, TWICE, NONE = "sure", "likely", "guess", "twice", "none"
ALIKE, LEAST = 0.9, 0.3  # how much two arrays have one direction: clearly, at least
SUMS = ("l_out", "ffn_inp", "attn_residual", "sa_out")  # from which all goes on that comes after them
MOST_TAPS, MOST_PAIRS = 2, 6  # that are tried at once
MANY = 3  # more close fits than these decide
COARSER, LOWEST = 1e4, 1e-9  # of a close fit: how many times the median it may be, and what it may be in any case
OF_ITS_KIND = 0.05  # added where arrays of the dump are taps of this kind already


@dataclass(frozen=True)
class Match:
    """One array of a dump.

    own    its name
    how    SURE: it fits one tap closely, and no other nearly as well; LIKELY, GUESS: by direction; TWICE: as another one; NONE
    place  its tap, axes, tokens and order; None for NONE
    score  from 0 to 1: 1 - NMSE for a close fit, else how much it has the tap's direction
    """

    own: str
    how: str
    place: Place | None
    score: float


def matched(
    model: Model, dump: Dump, calls: Sequence[Sequence[int]], route: Route, seen: Callable[[str], None]
) -> tuple[list[Match], Mapping[str, Seen]]:
    """What each array of a dump is, in its order, and what was kept of our taps.

    calls  the token ids of each call
    seen   called with what is computed

    DumpError if the dump has no array that has all its numbers; TokenError for an id outside the vocabulary.
    """
    for ids in calls:
        checked_tokens(ids, model.n_vocab)
    arrays = [Candidate(own, usable(x)) for own, x in dump.arrays.items() if x.whole and 0 not in x.shape]
    if not arrays:
        raise DumpError(f"{dump.path}: has no array with all its numbers; matching by value needs those")
    for candidate in arrays:
        candidate.norm = float(np.linalg.norm(candidate.array.astype(np.float64)))
    close = level(passed(model, route, calls, arrays, {}, seen, CLOSE))
    done: dict[str, Match] = {}
    fixed: dict[str, tuple[Candidate, Place]] = {}

    def again(more: Mapping[str, tuple[Candidate, Place]]) -> Finding:
        """A pass that goes on with what is decided, and with more; candidates that are not decided look for a place in it."""
        left = [c for c in arrays if c.own not in done]
        for candidate in left:
            candidate.place, candidate.seen, candidate.rival = None, None, np.inf
        return passed(model, route, calls, left, {**fixed, **more}, seen, close)

    while True:
        run = again({})
        for candidate in [c for c in arrays if c.own not in done and c.place]:
            done[candidate.own] = close_fit(candidate, run)
        fixed |= {tap: (candidate, candidate.place) for tap, candidate in run.taken.items() if candidate.place}
        left = [c for c in arrays if c.own not in done]
        news = decisions(run, fixed, left, again) if left else []
        if not news:
            break
        for score, candidate, place in news:
            fixed[place.tap] = candidate, place
            done[candidate.own] = Match(candidate.own, LIKELY if score > ALIKE else GUESS, place, min(score, 1.0))
    for score, candidate, place in left_over(run, fixed, left):
        done[candidate.own] = Match(candidate.own, GUESS, place, min(score, 1.0))
    return [done.get(c.own, Match(c.own, NONE, None, 0.0)) for c in arrays], run.taps


def level(run: Finding) -> float:
    """The NMSE below which an array of this dump fits closely: far above what most of those have that a first pass found."""
    fits = [candidate.place.fit for candidate in run.taken.values() if candidate.place]
    return min(CLOSE, max(LOWEST, COARSER * float(np.median(fits)))) if fits else CLOSE


def close_fit(candidate: Candidate, run: Finding) -> Match:
    """What an array is that fits closely."""
    assert candidate.place is not None
    how = SURE if candidate.sure else LIKELY
    return Match(
        candidate.own, how if run.taken.get(candidate.place.tap) is candidate else TWICE, candidate.place, 1 - candidate.place.fit
    )


def sure(matches: Sequence[Match]) -> bool:
    """Whether all of a map is sure: every array fits one tap closely, or is another one's copy."""
    return all(match.how in (SURE, TWICE) for match in matches)


def usable(x: Numbers) -> F:
    """The numbers of an array as floats; an array of one number as [1]."""
    array = x.read()
    return array.reshape(1) if not array.ndim else array


def passed(
    model: Model,
    route: Route,
    calls: Sequence[Sequence[int]],
    arrays: Sequence[Candidate],
    fixed: Mapping[str, tuple[Candidate, Place]],
    seen: Callable[[str], None],
    close: float,
) -> Finding:
    """One pass of ours that goes on with what was decided, and with what it finds: what fits with an NMSE below `close`."""
    finding = Finding(model.hp, arrays, fixed, seen, close)
    session = model.session(route, REFERENCE, finding, scores=True)
    for _ in run_calls(session, calls, finding):
        pass
    return finding


Pair = tuple[float, Candidate, Place]  # how much an array has a tap's direction, the array, its place under the tap


def decisions(
    run: Finding,
    fixed: Mapping[str, tuple[Candidate, Place]],
    left: Sequence[Candidate],
    again: Callable[[Mapping[str, tuple[Candidate, Place]]], Finding],
) -> list[Pair]:
    """What is decided next about arrays that fit nothing closely. None if there is nothing to go by.

    again  a pass that goes on with one more array

    Of the likeliest pairs the one is taken with which most other arrays fit closely. If with none more do, those are taken that are
    clear by their direction, or the best one.
    """
    scored = pairs_of(run, fixed, left)
    best: dict[int | str, float] = {}
    for score, candidate, place in scored:
        for one in (id(candidate), place.tap):
            best[one] = max(best.get(one, 0.0), score)
    mutual = sorted((p for p in scored if p[0] == best[id(p[1])] == best[p[2].tap] and p[0] > LEAST), key=lambda p: -p[0])
    enough, chosen, most = max(MANY, len(left) // 5), None, 0
    for pair in likeliest(scored, mutual, {stem(tap) for tap in fixed}):
        again({pair[2].tap: pair[1:]})
        gain = sum(c.place is not None and tells(c, run) for c in left if c is not pair[1])
        if gain > most:
            chosen, most = pair, gain
        if most >= enough:
            break
    if chosen:
        return [chosen]
    return once(pair for pair in mutual if pair[0] > ALIKE) or mutual[:1]


def likeliest(scored: Sequence[Pair], mutual: Sequence[Pair], kinds: set[str]) -> Iterator[Pair]:
    """The pairs to try: of the first free residual sums, the best mutual ones, of the first taps of a kind that is there."""
    sums = list(dict.fromkeys(pair[2].tap for pair in scored if stem(pair[2].tap) in SUMS))[:MOST_TAPS]
    first = list(dict.fromkeys(pair[2].tap for pair in scored if stem(pair[2].tap) in kinds))[:MOST_TAPS]
    by_score = sorted(scored, key=lambda pair: -pair[0])
    tried = set[int]()
    for pairs in (*([p for p in by_score if p[2].tap == tap] for tap in sums), mutual, [p for p in by_score if p[2].tap in first]):
        for pair in pairs[:MOST_PAIRS]:
            if id(pair) not in tried:
                tried.add(id(pair))
                yield pair


def tells(candidate: Candidate, run: Finding) -> bool:
    """Whether a close fit of an array says something: it has more than one number or two of each token."""
    place = candidate.place
    return place is not None and candidate.array.size > 2 * place.count and run.taps[place.tap].width > 2


def pairs_of(run: Finding, fixed: Mapping[str, tuple[Candidate, Place]], left: Sequence[Candidate]) -> list[Pair]:
    """Every array that has no place with every tap of its size that is free, in the order of the taps."""
    kinds = {stem(tap) for tap in fixed}
    out = list[Pair]()
    for tap, seen in run.taps.items():
        if tap in fixed:
            continue
        for candidate in left:
            score, place = directed(candidate.array, tap, seen, run.hp)
            if place:
                out.append((score + OF_ITS_KIND * (stem(tap) in kinds), candidate, place))
    return out


def once(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, best first, without those whose array or tap is in a better one."""
    out = list[Pair]()
    for pair in sorted(pairs, key=lambda pair: -pair[0]):
        if all(pair[1] is not other[1] and pair[2].tap != other[2].tap for other in out):
            out.append(pair)
    return out


def left_over(run: Finding, fixed: Mapping[str, tuple[Candidate, Place]], left: Sequence[Candidate]) -> list[Pair]:
    """A guess for arrays that have no tap's direction: what is free of their size, and of a kind that the dump has."""
    kinds = {stem(tap) for tap in fixed}
    return once(pair for pair in pairs_of(run, fixed, left) if stem(pair[2].tap) in kinds)


def rules_of(matches: Sequence[Match], taps: Mapping[str, Seen]) -> list[Rule]:
    """The map that says what was found, for `--map`; of what is there twice, the first.

    taps  what was kept of each of our taps
    """
    found: dict[str, Rule] = {}
    for match in matches:
        place = match.place
        if place is None or match.how == TWICE:
            continue
        part = place.count != taps[place.tap].fresh
        tokens = (place.first, place.first + place.count) if part else None
        heads = "" if place.order == AS_IS else place.order
        found[match.own] = Rule(re.compile(re.escape(match.own)), place.tap, 0, place.axes, heads, "", tokens)
    return together(found)
