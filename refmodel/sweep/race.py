"""The race: all routes meet a few questions, the losers leave, the rest meet more.

Sequential halving (Karnin, Koren, Somekh 2013) on gains over the unrouted model. The classic rule keeps half; here a rung keeps one
in KEEP, and as many more as it needs: in nearly all resamples of its questions the best route is among those that stay. How sure
that makes the result is the product over the rungs, and it is reported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F, Ints
from .score import resampled_means

FEWEST = 4  # groups of questions in the first rung: fewer say nothing about their own spread
KEEP = 3  # a rung keeps one route in so many, or more
GROWTH = 2  # each rung has so many times the questions of the one before
FINAL = 8  # routes that meet all questions, or more
RISK = 0.02  # share of resamples in which a rung may lose the best route


def rungs(questions: int, group: int = 1) -> list[int]:
    """How many questions have been met after each rung, rising up to all; multiples of `group` before the last."""
    groups = -(-questions // group)
    first = min(groups, max(FEWEST, groups // 8))
    marks = []
    while first < groups:
        marks.append(first * group)
        first *= GROWTH
    return [*marks, questions]


def kept(gains: F, most: int, risk: float = RISK) -> tuple[Ints, float]:
    """Which routes stay after a rung, and the share of resamples in which the best one is among them.

    gains  [Q, C] of the routes in this rung, on all questions that they have met
    most   how many stay if the questions are clear; more stay if they are not

    Returns their columns, the best first, and the share.
    """
    order = np.argsort(-gains.mean(axis=0), kind="stable")
    if len(order) <= most:
        return order, 1.0
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    means = resampled_means(gains)
    best = place[means.argmax(axis=1)]  # where the best of each resample stands
    enough = int(np.quantile(best, 1 - risk, method="inverted_cdf")) + 1
    stay = max(most, enough)
    return order[:stay], float((best < stay).mean())


@dataclass(frozen=True)
class Rung:
    """One rung as it was run: how many routes met how many questions in all, how many stay, and how surely the best does."""

    routes: int
    questions: int
    stay: int
    sure: float


@dataclass(frozen=True)
class Race:
    """How a race went.

    rungs    in order
    order    the columns of the routes that met all questions, the best first
    """

    rungs: Sequence[Rung]
    order: Sequence[int]

    @property
    def sure(self) -> float:
        """The product over the rungs of the share of resamples in which the best route stays."""
        return float(np.prod([rung.sure for rung in self.rungs]))

    @property
    def asked(self) -> int:
        """How many (route, question) pairs were computed."""
        before = [0, *(rung.questions for rung in self.rungs)]
        return sum(rung.routes * (rung.questions - seen) for rung, seen in zip(self.rungs, before))


def raced(routes: int, marks: Sequence[int], gains: Callable[[Sequence[int], int], F]) -> Race:
    """Run a race.

    routes  how many start
    marks   questions after each rung, rising
    gains   (columns, number of the rung) -> gains [groups of questions, columns] of these routes on all questions up to that rung
    """
    alive, done = list(range(routes)), []
    for number, questions in enumerate(marks):
        found = gains(alive, number)
        last = number == len(marks) - 1
        most = len(alive) if last else max(FINAL, -(-len(alive) // KEEP))
        stay, sure = kept(found, most)
        done.append(Rung(len(alive), questions, len(stay), sure))
        alive = [alive[column] for column in stay]
    return Race(done, alive)
