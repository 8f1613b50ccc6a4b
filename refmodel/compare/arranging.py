"""The arrays of a dump, each at its place in our pass, under one reading of its tokens."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..dumps.dump import Dump, Numbers
from ..dumps.layouts import orders
from ..dumps.map_file import Rule
from ..dumps.names import BLOCK, LOGITS, STATES, Name, taken_apart
from ..errors import DumpError
from ..forward.taps import in_call
from ..model.model import Model
from ..model.route import Route
from .other_side import Remark
from .placing import CLEARLY, CLOSE, FAR, Place, Seen, candidates, fit, placed, probed
from .rows import squeezed
from .sizes import Odd, of_other_size
from .verdict import stem

OURS = re.compile(r"(?P<stem>.+?)-(?P<block>\d+)(?P<count>#\d+)?(?:@(?P<call>\d+))?")
STACKED = {"hidden_states": STATES, "all_hidden_states": STATES, "attentions": "attentions", "layers": "layers", "l_out": "layers"}


@dataclass
class Found:
    """One array of a dump at its place: its own name, the array, the name taken apart, and the rule of --map that names it."""

    own: str
    numbers: Numbers
    name: Name
    place: Place
    rule: Rule | None = None


@dataclass
class Arranged:
    """The arrays of a dump under one reading of its tokens.

    ours     our taps of those tokens
    found    what has a place
    unknown  names that say nothing
    odd      those whose size does not fit their tap
    absent   (name, array, name taken apart) of those whose tap this model does not have
    remarks  on sizes that are not those of the taps
    """

    calls: Sequence[Sequence[int]]
    ours: Mapping[str, Seen]
    found: list[Found] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    odd: list[Odd] = field(default_factory=list)
    absent: list[tuple[str, Numbers, Name]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def misfit(self) -> float:
        """The median NMSE of what the pass computes first, of its end only if nothing else is there; infinite for none."""
        order = {tap: place for place, tap in enumerate(self.ours)}
        early = sorted((f for f in self.found if np.isfinite(f.place.fit)), key=lambda f: order[f.place.tap])
        fits = [f.place.fit for f in early if not f.place.tap.startswith("result_")] or [f.place.fit for f in early]
        return float(np.median(fits[:6])) if fits else float("inf")


def arrange(model: Model, dump: Dump, calls: Sequence[Sequence[int]], route: Route, rules: Sequence[Rule]) -> Arranged:
    """The arrays of a dump at their places, if it ran these tokens.

    DumpError for a rule that names no tap, or no array.
    """
    scores = any("kq" in name or "att" in name.lower() for name in dump.arrays)
    mtp = any("mtp" in name for name in dump.arrays)
    ours = probed(model, route, calls, ["kq-0"] * scores + ["mtp_"] * mtp, dump.apart)
    out = Arranged(calls, ours)
    for own, numbers in each(dump, len(route.layers)):
        rule = next((r for r in rules if r.tap_of(own) is not None), None)
        name, taps = named(own, dump, ours, len(route.layers), rule)
        if rule is None and not dump.printed and logits_by_size(own, dump, taps, ours):
            name, taps = Name(LOGITS, None, name.call, own), [in_call(LOGITS[0], name.call if taps else 0)]
        if not taps:
            out.absent += [(own, numbers, name)] * bool(name.stems)
            out.unknown += [own] * (not name.stems)
        elif place := best(numbers, [*taps, *in_later_calls(own, taps, calls, ours)], ours, model, rule):
            out.found.append(Found(own, numbers, replace(name, call=call_of(place.tap)), place, rule))
        else:
            out.odd.append(Odd(own, taps[0], numbers))
    with_other_sizes(out)
    used = {id(f.rule) for f in out.found}
    for rule in rules:
        if id(rule) not in used and not any(rule.tap_of(one.own) for one in out.odd):
            raise DumpError(
                f"--map: {rule.pattern.pattern!r} matches no array of {dump.path}; it has {', '.join(list(dump.arrays)[:6])}"
            )
    return out


def with_other_sizes(kept: Arranged) -> None:
    """Give the arrays of another size the places that they have after all, and remark on them."""
    found, kept.remarks = of_other_size(kept.odd, kept.ours, kept.calls)
    placed_now = {one.own.partition(", call ")[0] for one, _ in found}
    kept.odd = [one for one in kept.odd if one.own not in placed_now]
    for one, place in found:
        match = OURS.fullmatch(one.tap)
        name = Name((stem(one.tap),), int(match["block"]) if match else None, call_of(one.tap), one.own)
        kept.found.append(Found(one.own, one.numbers, name, place))


def in_later_calls(own: str, taps: Sequence[str], calls: Sequence[Sequence[int]], ours: Mapping[str, Seen]) -> list[str]:
    """The same taps in the later calls, the last call first, for a name that says no call: it may be of the last step."""
    if any("@" in tap for tap in taps) or taken_apart(own).call:
        return []
    return [tap for k in range(len(calls) - 1, 0, -1) for first in taps if (tap := in_call(first, k)) in ours]


def call_of(tap: str) -> int:
    """The call that a tap is of."""
    return int(tap.partition("@")[2] or 0)


def each(dump: Dump, n_position: int) -> Iterator[tuple[str, Numbers]]:
    """The arrays one by one; one that has all layers along its first axis is taken apart."""
    for own, x in dump.arrays.items():
        word = own.rpartition(".")[2]
        if word not in STACKED or x.at is not None or len(x.shape) < 3 or x.shape[0] not in (n_position, n_position + 1):
            yield own, x
            continue
        prefix = STACKED[word] if x.shape[0] == n_position + 1 or word == "attentions" else "layers"
        for i in range(x.shape[0]):
            yield f"{prefix}.{i}", replace(x, shape=x.shape[1:], read=lambda x=x, i=i: x.read()[i])  # type: ignore[misc]


def named(own: str, dump: Dump, ours: Mapping[str, Seen], n_position: int, rule: Rule | None) -> tuple[Name, list[str]]:
    """A foreign name taken apart, and the taps that it may mean. DumpError for a rule that names no tap."""
    if rule:
        tap = rule.tap_of(own) or ""
        if tap not in ours:
            raise DumpError(
                f"--map: {rule.pattern.pattern!r} makes {own} the tap {tap!r}, which a pass of this model does not have; "
                "`refmodel trace` lists the taps"
            )
        return Name((stem(tap),), None, 0, own), [tap]
    if own in ours or dump.printed:
        match = OURS.fullmatch(own)
        if not match or own not in ours:
            return Name((stem(own),) if own in ours else (), None, 0, own), [own] * (own in ours)
        return Name((match["stem"] + (match["count"] or ""),), int(match["block"]), int(match["call"] or 0), own), [own]
    name = taken_apart(own)
    return name, candidates(name, ours, n_position)


def logits_by_size(own: str, dump: Dump, taps: Sequence[str], ours: Mapping[str, Seen]) -> bool:
    """Whether an array must be the logits, whatever its name: it is as wide as the vocabulary, and no other one is named so.

    A name that means something else is believed, unless the array is alone: then its name is that of a file.
    """
    width, shape = ours[LOGITS[0]].width if LOGITS[0] in ours else 0, squeezed(dump.arrays[own].shape) if own in dump.arrays else ()
    others = [name for name, x in dump.arrays.items() if name != own and width in x.shape]
    means = taps if len(dump.arrays) > 1 else [tap for tap in taps if ours[tap].width in shape]
    return len(shape) < 3 and width in shape and not others and not means


def best(numbers: Numbers, taps: Sequence[str], ours: Mapping[str, Seen], model: Model, rule: Rule | None = None) -> Place | None:
    """The best place of an array among taps, the first unless another fits clearly better; None if it fits none by its size."""
    options = [place for tap in taps if (place := place_of(numbers, tap, ours[tap], model, rule)) is not None]
    if not options:
        return None
    chosen = options[0]
    for other in options[1:]:
        chosen = other if chosen.fit > CLOSE and other.fit * CLEARLY < chosen.fit else chosen
    return chosen


def place_of(numbers: Numbers, tap: str, seen: Seen, model: Model, rule: Rule | None) -> Place | None:
    """The place of an array under a tap; None if its size is wrong."""
    if numbers.at is not None or numbers.rows is not None:
        width = numbers.shape[-1] if numbers.log else seen.width
        count, left = divmod(int(np.prod(numbers.shape)), seen.width)
        last = seen.fresh - 1 if numbers.rows is None else int(numbers.rows.max())
        if left or width != seen.width or count > max(seen.fresh, 1) or last >= seen.fresh:
            return None
        return Place(tap, (), seen.fresh - count if seen.by_token else 0, count, "as it is", None, np.nan)
    first = rule.tokens[0] if rule and rule.tokens else None
    array = numbers.read()
    if rule and rule.axes and len(rule.axes) == len([n for n in array.shape if n != 1]):
        array = array.reshape([n for n in array.shape if n != 1]).transpose(rule.axes)
    place = placed(array, array.shape, tap, seen, stem(tap), model.hp, first)
    if place and rule and rule.axes:
        place = replace(place, axes=rule.axes)
    if place and rule and rule.heads:
        place = replace(place, order=rule.heads, index=orders(stem(tap), seen.width, model.hp).get(rule.heads))
    return place


def reordered(model: Model, kept: Arranged, n_position: int) -> list[Remark]:
    """Remarks on blocks, or tokens, that are numbered one off; their arrays get the places that they belong to."""
    groups: dict[str, Callable[[Found], bool]] = {
        "block outputs": lambda f: f.name.stems[:1] == (BLOCK,),
        "arrays of blocks": lambda f: f.name.stems[:1] not in ((BLOCK,), (STATES,)),
    }
    out = []
    for words, belongs in groups.items():
        group = [f for f in kept.found if f.name.block is not None and f.rule is None and belongs(f)]
        if shift := off_by(model, kept, group, n_position):
            moved = " (transformers counts from the embedding)" if shift < 0 else ""
            out.append(
                Remark(
                    "shifted-by-one",
                    f"the {words} are numbered one off: {group[0].own} fits {group[0].place.tap}{moved}; they are "
                    "compared where they fit: number them from the output of block 0",
                )
            )
    return out + off_tokens(kept)


def off_by(model: Model, kept: Arranged, group: Sequence[Found], n_position: int) -> int:
    """By how much a group's blocks are numbered off, -1, 0 or 1: only if that fits clearly better. Then they are moved."""
    now = median([f.place.fit for f in group])
    if not group or not now > CLOSE:
        return 0
    lost = [Found(own, x, name, group[0].place) for own, x, name in kept.absent if name.stems[:1] == group[0].name.stems[:1]]
    for shift in (-1, 1):
        places = {}
        for f in [*group, *lost]:
            blocks = f.name.stems[:1] == (BLOCK,) and shift == -1
            name = replace(f.name, stems=(STATES,)) if blocks else f.name
            taps = candidates(name, kept.ours, n_position, 0 if blocks else shift)
            if taps and (place := best(f.numbers, taps, kept.ours, model)):
                places[f.own] = place
        then = median([place.fit for place in places.values()])
        if then < FAR and then * CLEARLY < now:
            names = {f.own for f in group}
            kept.found = [f for f in kept.found if f.own not in names]
            kept.found += [replace(f, place=places[f.own]) for f in [*group, *lost] if f.own in places]
            kept.absent = [a for a in kept.absent if a[0] not in places]
            group[0].place = places.get(group[0].own, group[0].place)
            return shift
    return 0


def off_tokens(kept: Arranged) -> list[Remark]:
    """Remarks on arrays whose tokens are one off, or not as many as the call has; they get the tokens that fit."""
    out, moved, fewer = list[Remark](), list[Found](), list[Found]()
    for f in kept.found:
        ours = kept.ours[f.place.tap]
        if not ours.by_token or f.numbers.at is not None or f.numbers.log or f.place.count in (0, 1) or (f.rule and f.rule.tokens):
            continue
        array, short = f.numbers.read(), f.place.count < ours.fresh
        fits = {shift: fit(array, f.place, ours, shift) for shift in {-1, 0, 1, f.place.first}}  # the last: its first tokens
        shift = min(fits, key=lambda s: fits[s] if np.isfinite(fits[s]) else np.inf)
        if shift and fits[shift] < FAR and not fits[0] <= max(CLOSE, fits[shift] * CLEARLY):
            f.place = replace(f.place.shifted(shift, ours.fresh), fit=fits[shift])
            moved += [] if short else [f]
        fewer += [f] * short
    if moved:
        out.append(
            Remark(
                "shifted-by-one",
                f"the tokens of {listed(moved)} are one off: token t is written as token t + 1 or t - 1; they are "
                "compared where they fit: write the row of a token at its own place",
            )
        )
    if fewer:
        f = fewer[0]
        out.append(
            Remark(
                "positions",
                f"{listed(fewer)} has {f.place.count} tokens, the run has {kept.ours[f.place.tap].fresh}; compared with "
                f"tokens {f.place.first} to {f.place.first + f.place.count - 1}: write every token, or only the last",
            )
        )
    return out


def listed(found: Sequence[Found]) -> str:
    """The names of some arrays, at most three of them."""
    names = [f.own for f in found]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def median(values: Sequence[float]) -> float:
    """The median of the finite ones; infinite for none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("inf")
