"""Arrays of a dump that have another size than their tap, for a reason that can be seen: more tokens, all calls, a padded head."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..arrays import F
from ..dumps.dump import Numbers
from ..dumps.layouts import AS_IS
from ..forward.taps import in_call
from .other_side import Remark
from .placing import FAR, Place, Seen, fit
from .rows import ratio

LOGITS = "result_output"
PADDED = 2  # times the vocabulary that a head may have; what decides is whether the columns of both fit
CALL = re.compile(r"@\d+$")


@dataclass(frozen=True)
class Odd:
    """An array whose size is not that of its tap: the program's name of it, the tap, and the array."""

    own: str
    tap: str
    numbers: Numbers


def of_other_size(
    odd: Sequence[Odd], ours: Mapping[str, Seen], calls: Sequence[Sequence[int]]
) -> tuple[list[tuple[Odd, Place]], list[Remark]]:
    """Those of the odd arrays that have a place after all, with it, and what is to be remarked.

    calls  the token ids of each call
    """
    out, remarks = list[tuple[Odd, Place]](), list[Remark]()
    skip = tokens_before([one for one in odd if not CALL.search(one.tap)], ours)
    more = list[tuple[Odd, Place]]()
    for one in odd:
        seen = ours[one.tap]
        if not one.numbers.whole or not seen.by_token:
            continue
        if parts := list(in_calls(one, ours, calls)):
            out += parts
        elif skip is not None and tokens_of(one.numbers, seen) > seen.fresh:
            more.append((one, among(one, seen, skip)))
        elif one.tap.startswith(LOGITS) and (found := without_padding(one, seen)):
            out.append(found)
            remarks.append(padded(one, seen))
    if more:
        remarks.append(too_many(more, ours))
    return out + more, remarks


def tokens_of(x: Numbers, seen: Seen) -> int:
    """How many tokens of a tap an array has by its size; 0 if it has no whole number of them."""
    count, left = divmod(prod(x.shape), seen.width) if seen.width else (0, 1)
    return 0 if left else count


def in_calls(one: Odd, ours: Mapping[str, Seen], calls: Sequence[Sequence[int]]) -> Iterator[tuple[Odd, Place]]:
    """An array that has the tokens of all calls, call by call; nothing for any other."""
    lengths = [len(call) for call in calls]
    if len(calls) < 2 or CALL.search(one.tap) or tokens_of(one.numbers, ours[one.tap]) != sum(lengths):
        return
    width = ours[one.tap].width
    for k, (end, count) in enumerate(zip(np.cumsum(lengths), lengths)):
        tap = in_call(one.tap, k)
        if tap not in ours or ours[tap].width != width:
            return

        def read(start: int = int(end) - count, end: int = int(end)) -> F:
            return one.numbers.read().reshape(-1, width)[start:end]

        part = replace(one.numbers, shape=(count, width), read=read)
        place = Place(tap, (), 0, count, AS_IS, None, np.nan)
        yield Odd(f"{one.own}, call {k}", tap, part), replace(place, fit=fit(read(), place, ours[tap]))


def tokens_before(odd: Sequence[Odd], ours: Mapping[str, Seen]) -> int | None:
    """Whether a program that has more tokens than the run has them after those of the run (0) or before (-1).

    The first of its arrays that fits decides; None if none fits.
    """
    for one in sorted(odd, key=lambda one: list(ours).index(one.tap)):
        seen = ours[one.tap]
        if one.numbers.whole and seen.by_token and tokens_of(one.numbers, seen) > seen.fresh:
            fits = {skip: among(one, seen, skip).fit for skip in (0, -1)}
            best = min(fits, key=lambda skip: fits[skip] if np.isfinite(fits[skip]) else np.inf)
            if fits[best] < FAR:
                return best
    return None


def among(one: Odd, seen: Seen, skip: int) -> Place:
    """The place of an array that has more tokens than the run: of its first ones (`skip` 0) or its last ones (-1)."""
    before = 0 if skip == 0 else tokens_of(one.numbers, seen) - seen.fresh
    place = Place(one.tap, (), 0, seen.fresh, AS_IS, None, np.nan, before)
    return replace(place, fit=fit(one.numbers.read(), place, seen))


def too_many(more: Sequence[tuple[Odd, Place]], ours: Mapping[str, Seen]) -> Remark:
    """The remark on arrays with more tokens than the run."""
    one, place = more[0]
    count, rest = tokens_of(one.numbers, ours[one.tap]), f" and {len(more) - 1} more" if len(more) > 1 else ""
    return Remark(
        "positions",
        f"{one.own}{rest} has {count} tokens, the run has {place.count}; tokens {place.skip} to {place.skip + place.count - 1} are "
        "compared: give both programs the same ids",
    )


def without_padding(one: Odd, seen: Seen) -> tuple[Odd, Place] | None:
    """Logits with more columns than the vocabulary has tokens, or fewer, as those that both have; None if these do not fit."""
    x, (V,) = one.numbers, seen.shape[1:]
    there = x.shape[-1]
    count = prod(x.shape) // max(there, 1)
    if there == V or count > seen.fresh or not V / PADDED <= there <= V * PADDED:
        return None
    both, first = min(there, V), seen.fresh - count
    kept = (seen.rows >= first) & (seen.rows < first + count)
    a = seen.kept[kept][:, :both].astype(np.float64)
    b = x.read().reshape(count, there)[seen.rows[kept] - first, :both].astype(np.float64)
    if not np.isfinite(b).all() or not ratio(float(((a - b) ** 2).sum()), float((a * a).sum())) < FAR:
        return None
    place = Place(one.tap, (), first, count, AS_IS, None, np.nan)
    if there > V:
        part = replace(x, shape=(count, V), read=lambda: np.ascontiguousarray(x.read().reshape(count, there)[:, :V]))
        return replace(one, numbers=part), place
    at = (np.arange(count)[:, None] * V + np.arange(there)).ravel()
    return replace(one, numbers=replace(x, shape=(count, V), at=at, read=lambda: x.read().ravel())), place


def padded(one: Odd, seen: Seen) -> Remark:
    """The remark on logits of another number of columns."""
    return Remark(
        "vocabulary-size",
        f"{one.own} has {one.numbers.shape[-1]} columns, the vocabulary {seen.shape[-1]} tokens, as where a head is padded; the "
        "columns that both have are compared",
    )
