"""A diagnosis: which fault, or pair of faults, explains another program's numbers, and how sure that is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...compare.other_side import Other, Remark
from ...model.model import Model
from ...model.route import Route
from ...notebook import html_of
from ...numerics import REFERENCE
from ..fault import LATER, ROUTED, ROUTED_LATER, SECOND, SHORT, Calls, Engine, Fault
from .accepting import CLEARLY, Answer, accepted, answers, gain, settled
from .judging import COARSE, EQUAL, FINE, WRONG, Judged, arithmetics, judge
from .running import closed, everything, run
from .scoring import LEFT, Scale, scale_of
from .search import A_SECOND, MOST_PAIRS, Hypothesis, Search, first_blocks, fitting, small
from .span import Span, span_of
from .symptoms import Symptom, symptoms
from .unknown import Located, located

FAULT, HEALTHY, UNKNOWN, HARNESS = "fault", "healthy", "unknown", "harness"
# Remarks of diff that say that the recording is of something else than was asked for
BROKEN = frozenset({"all-equal", "bos", "other-tokens", "warm-up-only", "stale"})
LEFT_BEHIND = frozenset({"conv kept"})  # sites that a call writes for the next one, and does not read
MISLABELLED = frozenset({"shifted-by-one", "transposed", "warm-up", "positions"})


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with another program.

    verdict     FAULT, HEALTHY, UNKNOWN (something that the library does not have) or HARNESS (the recording is of something else)
    answers     the hypotheses that explain it, the best first; for UNKNOWN the best that do not
    located     where it is wrong, and the simplest relation that holds there; None where nothing is
    symptoms    what the numbers look like before any hypothesis
    remarks     of the dump
    arithmetic  how the other side computes, in words
    judged      the healthy run
    """

    verdict: str
    answers: Sequence[Answer]
    located: Located | None
    symptoms: Sequence[Symptom]
    remarks: Sequence[Remark]
    arithmetic: str
    judged: Judged

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)


@dataclass
class Case:
    """What is to be explained, and with what.

    library  the faults that are tried
    seen     called with what is being tried
    coarsest the coarsest class of rounding that the other side may have, see judging.judge
    """

    model: Model
    other: Other
    route: Route
    library: Sequence[Fault]
    seen: Callable[[str], None]
    coarsest: str = ""


def diagnose(
    model: Model,
    other: Other,
    library: Iterable[Fault],
    seen: Callable[[str], None],
    asked: Calls | None = None,
) -> Diagnosis:
    """Find out what is wrong with the program that recorded a run.

    library  the faults that are tried, singly and in pairs
    seen     called with what is being tried, for a progress bar
    asked    the token ids of each call that it should have run; None for those that the recording is of

    Errors as Model.session and Session.forward raise them.
    """
    c = Case(model, other, model.route(other.route), tuple(library), seen)
    seen("no fault")
    judged, chosen = of_healthy(c)
    codes = {remark.code for remark in other.remarks}
    if codes & BROKEN:
        return result(c, HARNESS, judged, fed_otherwise(c, asked))
    right = HARNESS if codes & MISLABELLED else HEALTHY
    if judged.word in (EQUAL, FINE):
        return result(c, right, judged, ())
    found = of_later(c, judged) or explained(c, judged, chosen)
    if found is None:
        return result(c, right, judged, ())
    if found or (found := of_outputs(c, judged)):
        return result(c, FAULT, judged, found)
    return result(c, right if judged.word == COARSE else UNKNOWN, judged, ())


def fed_otherwise(c: Case, asked: Calls | None) -> Sequence[Answer]:
    """The faults of a harness that make the recorded calls of those that were asked for."""
    feeds = [(f, f.on(Engine(c.model, REFERENCE))) for f in c.library] if asked is not None else []
    ran = [list(map(int, call)) for call in c.other.calls]
    same = [
        f for f, e in feeds if e and asked is not None and [list(map(int, call)) for call in e.feed(asked)] == ran != list(asked)
    ]
    alike = tuple((fault,) for fault in same[1:])
    return [Answer((same[0],), alike, 1.0, 0.0, {}, "other tokens", "the tokens say so themselves")] if same else ()


def result(c: Case, verdict: str, judged: Judged, found: Sequence[Answer]) -> Diagnosis:
    """A diagnosis with where it is wrong, and what it looks like."""
    wrong = verdict in (FAULT, UNKNOWN)
    where = located(c.model, c.route, c.other, judged) if wrong else None
    signs = symptoms(c.model, c.other, judged) if wrong else []
    rounds = found[0].rounds if found else judged.rounds
    return Diagnosis(verdict, found, where, signs, c.other.remarks, rounds, judged)


def of_healthy(c: Case) -> tuple[Judged, tuple[int, ...]]:
    """The healthy run, judged, and the blocks that are looked at to tell faults apart."""
    make = partial(Engine, c.model)
    all_of_it = everything(c.route)
    if small(c.model, c.other):
        judged = judge(make, c.route, c.other, all_of_it, None, c.coarsest)
        return judged, first_blocks(c.model, c.route, dict(judged.seen.nmse))
    base = run(make(REFERENCE), c.route, c.other, all_of_it)
    chosen = first_blocks(c.model, c.route, dict(base.nmse))
    part = judge(make, c.route, c.other, closed(c.route, c.other, chosen, True), base, c.coarsest)
    return part.extended(base), chosen


def logits_only(c: Case) -> Span | None:
    """The span of the head's columns, where only logits were recorded; else None."""
    if any(not tap.startswith("result_output") for tap in c.other.taps):
        return None
    return span_of(Engine(c.model, REFERENCE), c.other)


def explained(c: Case, judged: Judged, chosen: tuple[int, ...]) -> Sequence[Answer] | None:
    """The hypotheses that explain the other side, the best first; none if no fault and no pair does. None if none is needed."""
    span = logits_only(c)
    scale = scale_of(judged, c.other, span)
    faults = fitting(can_show(c), c.model, c.route, c.other, judged)
    searches = list[tuple[Search, list[Hypothesis]]]()
    ways = by_arithmetic(c, chosen, scale)
    if any(search.healthy_explains(faults) for search in ways):
        return None
    for search in ways:
        few = len(searches) > (judged.word != COARSE) or (searches and not small(c.model, c.other))
        found = search.singles([h.faults[0] for h in searches[0][1][:8]] if few else faults)
        searches.append((search, found))
        if finely(found, scale.noise):
            break
    by_cost = sorted([pair for pair in searches if pair[1]], key=lambda pair: pair[1][0].score.cost)
    one = next(((s, singles, best) for s, singles in by_cost[:2] if (best := accepted(s, singles, judged))), None)
    if one and (span is None or settled(one[0], one[2])):
        return answers(*one)
    for search, singles in by_cost[: judged.word != COARSE]:
        pairs = search.pairs(search.singles(faults) if small(c.model, c.other) else singles, A_SECOND if one else MOST_PAIRS)
        best = accepted(search, pairs, judged)
        if best and (one is None or best.score.white or gain(search, best)[1] * CLEARLY < gain(one[0], one[2])[1]):
            return answers(search, pairs, best)
    return answers(*one) if one else ()


def of_later(c: Case, judged: Judged) -> Sequence[Answer]:
    """The faults of later calls that explain every token of a greedy run, made call by call: in one call none of them shows.

    judged  the healthy run, for what is wrong without them
    """
    later, found = c.other.later, list[Fault]()
    for fault in c.library if later else ():
        shows_later = fault.when == LATER or set(fault.at) <= LEFT_BEHIND
        engine = fault.on(Engine(c.model, REFERENCE)) if shows_later else None
        if engine is not None and later is not None:
            c.seen(fault.name)
            seen = run(engine, c.route, later, everything(c.route), keep=False)
            found += [fault] * all(nmse <= LEFT for nmse in seen.nmse.values())
    alike = tuple((fault,) for fault in found[1:])
    before = sum(judged.seen.nmse.values()) / max(len(judged.seen.nmse), 1)
    return [Answer((found[0],), alike, before, 0.0, {}, "float32", "every token is as it makes them")] if found else ()


def of_outputs(c: Case, judged: Judged) -> Sequence[Answer]:
    """The hypotheses that explain what the blocks put out, where none explains every tap of a full trace.

    An engine may keep the same fault in another place: a matrix whose rows are exchanged gives other numbers at once, and rows that
    are read in another order only where they are used. What the block puts out is the same.
    """
    outputs = {tap: x for tap, x in c.other.taps.items() if tap.startswith(("l_out-", "result_output"))}
    if judged.word != WRONG or len(outputs) == len(c.other.taps) or not any(tap.startswith("l_out-") for tap in outputs):
        return ()
    case = replace(c, other=replace(c.other, taps=outputs), coarsest=judged.rounds)
    again, chosen = of_healthy(case)
    found = (explained(case, again, chosen) if again.word == WRONG else ()) or ()
    return [
        replace(answer, sure=f"{answer.sure}; it is that of the blocks' outputs, taps within differ otherwise") for answer in found
    ]


def by_arithmetic(c: Case, chosen: tuple[int, ...], scale: Scale) -> list[Search]:
    """A search under each arithmetic that the other side may have, the one first that leaves least at most of the taps.

    A fault leaves many taps right when each operation starts from the other side's numbers; those say how it rounds.
    """
    out = []
    for words, numerics, rounds in arithmetics(Engine(c.model, REFERENCE), c.other):
        c.seen(f"no fault, {words}")
        plain = run(Engine(c.model, numerics), c.route, c.other, everything(c.route), None, rounds)
        out.append(Search(c.model, c.route, c.other, numerics, chosen, scale, plain, c.seen, rounds, words, c.coarsest))
    return sorted(out, key=lambda search: round(search.typical(), 1))


def can_show(c: Case) -> list[Fault]:
    """The faults that such a run can show: some need a later call, a short prompt, or a route that repeats blocks."""
    calls, layers = c.other.calls, c.route.layers
    prompts = calls if c.other.apart else calls[:1]
    there = {
        LATER: len(calls) > 1,
        SHORT: any(len(prompt) < c.model.hp.d_conv - 1 for prompt in prompts),
        SECOND: c.other.apart and len(calls) > 1,
        ROUTED: len(set(layers)) < len(layers),
        ROUTED_LATER: len(set(layers)) < len(layers) and len(calls) > 1,
    }
    return [fault for fault in c.library if there.get(fault.when, True)]


def finely(singles: Sequence[Hypothesis], noise: Mapping[str, float]) -> bool:
    """Whether the best hypothesis leaves no more than float32 does."""
    return bool(singles) and all(singles[0].seen.nmse[tap] <= 30 * noise[tap] for tap in noise if tap in singles[0].seen.nmse)
