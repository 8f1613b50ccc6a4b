"""Sides that take turns: ours, theirs, ours, theirs, in one process or through pipes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

SHORT = 2e-3  # seconds; a turn of less repeats its call
Side = Callable[[], float]  # takes one turn, returns its seconds


def timed(call: Callable[[], Any], repeat: int = 1) -> Side:
    """A side that calls a function `repeat` times. Returns the seconds of one call."""

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        return (time.perf_counter() - start) / repeat

    return turn


def sides(*calls: Callable[[], Any]) -> list[Side]:
    """Sides of calls in this process. All repeat equally often: until the fastest takes two milliseconds."""
    for call in calls:
        call()  # compiles, touches memory
    fastest = min(min(timed(call)() for _ in range(3)) for call in calls)
    return [timed(call, max(1, round(SHORT / fastest))) for call in calls]


def alternate(sides: Sequence[Side], rounds: int, warm: int = 1) -> list[list[float]]:
    """The seconds of each side, round by round; `warm` rounds before them are not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for k in range(warm + rounds):
        for taken, side in zip(seconds, sides, strict=True):
            turn = side()
            if k >= warm:
                taken.append(turn)
    return seconds
