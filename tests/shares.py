"""Which cases of a long list run in every suite. The others are marked `long`: .ci/run runs them, and `pytest -m long`.

The choice depends on the list alone, and none of its values is left out: only some of their combinations are.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import pytest


def parts_of(case: Any) -> set[Hashable]:
    """Each value of a case, with its place."""
    return set(enumerate(case)) if isinstance(case, tuple) else {case}


def cover(cases: Sequence[Any], parts: Callable[[Any], Iterable[Hashable]] = parts_of) -> list[int]:
    """Numbers of a few cases that have between them all parts of all: again and again the one that has most of what is missing."""
    have = [set(parts(case)) for case in cases]
    missing: set[Hashable] = set().union(*have)
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(have[i] & missing))  # the first of several
        chosen.append(best)
        missing -= have[best]
    return sorted(chosen)


def share(cases: Iterable[Any], parts: Callable[[Any], Iterable[Hashable]] = parts_of) -> list[Any]:
    """All cases as parameters; those that a cover does not need are long.

    parts  case -> what the suite must have of it: without it, each of its values
    """
    cases = list(cases)
    chosen = set(cover(cases, parts))
    return [marked(case, i in chosen) for i, case in enumerate(cases)]


def diagonal(*places: Iterable[Any]) -> list[Any]:
    """All combinations of the values of several places; all but a diagonal, which has every value, are long."""
    values = [list(place) for place in places]
    chosen = [tuple(place[i % len(place)] for place in values) for i in range(max(map(len, values)))]
    return only(itertools.product(*values), *chosen)


def only(cases: Iterable[Any], *short: Any) -> list[Any]:
    """All cases as parameters; all but the `short` ones are long."""
    cases = list(cases)
    assert not (strangers := [case for case in short if case not in cases]), strangers
    return [marked(case, case in short) for case in cases]


def marked(case: Any, short: bool) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=() if short else pytest.mark.long)


def name_of(value: Any) -> str | None:
    """What a parameter is called in the name of its test; pytest's own word for what has no name."""
    return getattr(value, "name", None)
