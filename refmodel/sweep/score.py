"""Honest statistics: paired differences, intervals, what the best of many is by luck, how many questions would settle it.

Everything is computed from gains: gains[q, c] says by how much route c answers question q better than the unrouted model. The same
questions go to all, so a question that is easy for one is easy for all, and only differences count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F

RESAMPLES = 2000
LEVEL = 0.02  # how often, at most, the correction lets a winner be announced where there is none
HELD_OUT = 0.05  # the same of the test on held-out questions, which has one candidate
OUTSIDE = 0.05  # how often an interval misses
POWER_Z = 0.8416  # of the standard normal: four times of five a true gain is found
SEED = 22
EXACT = 16  # questions of which all signs are tried
PARTS, PART, ENOUGH = 20, 10_000, 1_000  # samples of signs of more questions, and after how many hits that is enough


def grouped(gains: F, group: int) -> F:
    """Neighbouring questions that depend on each other as one: [Q, C] -> [G, C], of the same mean over all rows."""
    starts = np.arange(0, len(gains), group)
    return np.add.reduceat(gains, starts, axis=0) * (len(starts) / len(gains)) if group > 1 else gains


def resampled_means(gains: F, count: int = RESAMPLES, seed: int = SEED) -> F:
    """The means of `count` bootstrap samples of the questions, [count, C]; all routes get the same questions in each.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 6.
    """
    n = len(gains)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), count) / n
    return weights @ gains


def intervals(gains: F, level: float = OUTSIDE) -> F:
    """The paired bootstrap interval of each route's mean gain, [C, 2]: from the level/2 to the 1 - level/2 quantile.

    They are widened by sqrt(n / (n - 1)) around the mean, because a resample of n questions varies that much less than n new ones.
    """
    n, mean = len(gains), gains.mean(axis=0)
    if n < 2:
        return np.stack([np.full_like(mean, -np.inf), np.full_like(mean, np.inf)], axis=1)
    edges = np.quantile(resampled_means(gains), [level / 2, 1 - level / 2], axis=0)
    return (mean + (edges - mean) * np.sqrt(n / (n - 1))).T


def t_values(gains: F) -> F:
    """Mean over its standard error, of each route [C]; 0 where all gains are 0, infinite where all are one other number."""
    n = len(gains)
    mean = gains.mean(axis=0)
    error = gains.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, mean / error, np.where(mean == 0, 0.0, np.sign(mean) * np.inf))


def largest_by_chance(gains: F, count: int = RESAMPLES, seed: int = SEED) -> F:
    """The largest t-value of all routes in `count` worlds in which no route is better than the unrouted model, [count], rising.

    In each world a coin for every question decides whether all of its gains change their sign: if route and model are alike, either
    sign is as likely, and what the routes have in common (the model's own luck with a question) stays in common.
    Source: Westfall and Young, Resampling-Based Multiple Testing, for the largest of many; Fisher's randomization test.
    """
    coins = np.random.default_rng(seed).integers(0, 2, (count, len(gains))) * 2 - 1
    n, squares = len(gains), np.square(gains).sum(axis=0)
    means = coins @ gains / n
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(np.maximum(squares / n - np.square(means), 0) / max(n - 1, 1))
        t = np.where(errors > 0, means / errors, np.where(means > 0, np.inf, 0.0))
    return np.sort(t.max(axis=1))


def share_at_least(values: F, found: float) -> float:
    """The p-value of a statistic among those of `values`, which rise: (1 + how many reach it) / (1 + how many there are)."""
    return float((1 + len(values) - np.searchsorted(values, found, "left")) / (1 + len(values)))


def one_test(gains: F) -> float:
    """The p-value of one route that was chosen beforehand, [Q, 1] gains: whether its mean gain is above 0.

    Up to EXACT questions all signs are tried, so that the value is exact for any route that is like the unrouted model.
    """
    n, wanted = len(gains), gains.sum() - 1e-12 * np.abs(gains).sum()  # that of the signs as they are, and a rounding less
    if n < 2:
        return 1.0
    if n <= EXACT:
        coins = (np.arange(2**n)[:, None] >> np.arange(n) & 1) * 2 - 1
        return float((coins @ gains[:, 0] >= wanted).mean())
    found, seen = 1, 1
    for part in range(PARTS):
        coins = np.random.default_rng((SEED, part)).integers(0, 2, (PART, n), np.int8) * 2 - 1
        found += int((coins @ gains[:, 0] >= wanted).sum())
        seen += PART
        if found > ENOUGH:
            break
    return found / seen


def needed(gain: float, deviation: float, critical: float) -> float:
    """How many questions would show a gain of this size four times of five; infinite for none.

    deviation  standard deviation of the gain over questions
    critical   the t-value that the best of all routes has to reach
    """
    return np.inf if gain <= 0 else max(2.0, float(np.ceil(((critical + POWER_Z) * deviation / gain) ** 2)))


@dataclass(frozen=True)
class Standing:
    """The best route of a sweep, and whether it is more than luck.

    best        its column in the gains
    gain        its mean gain; interval: the paired bootstrap interval of that
    questions   on how many groups of questions
    corrected   p-value among all that were tried
    held_out    the mean gain on questions that had no part in choosing it, and its p-value; None if there are none
    luck        the gain that the best of so many routes has by luck alone, once in 1 / LEVEL sweeps
    tried       how many routes
    needed      how many questions (or groups of them) would settle it
    """

    best: int
    gain: float
    interval: tuple[float, float]
    questions: int
    corrected: float
    held_out: tuple[float, float] | None
    luck: float
    tried: int
    needed: float

    @property
    def wins(self) -> bool:
        """Whether a winner is announced: better beyond the luck of the best of all, and on held-out questions if there are any."""
        return self.corrected <= LEVEL and (self.held_out is None or (self.held_out[0] > 0 and self.held_out[1] <= HELD_OUT))


def standing(gains: F, held_out: F | None = None, tried: int = 0) -> Standing:
    """Judge the best route.

    gains     [Q, C] of the routes that met all questions; the best is chosen by them
    held_out  [H, C] on other questions; None or no rows if there are none
    tried     how many routes were tried in all; 0 if they are these. The others left a race: then the p-value of the best is
              multiplied by all that were tried (Bonferroni), which holds in whatever way it was chosen
    """
    mean, t = gains.mean(axis=0), t_values(gains)
    best = int(np.argmax(mean))
    chance = largest_by_chance(gains)
    critical = float(chance[int(np.ceil((1 - LEVEL) * len(chance))) - 1])
    n, column, tried = len(gains), gains[:, [best]], tried or gains.shape[1]
    deviation = float(column.std(ddof=1)) if n > 1 else 0.0
    low, high = intervals(column)[0]
    other = None if held_out is None or not len(held_out) else held_out[:, [best]]
    return Standing(
        best,
        float(mean[best]),
        (float(low), float(high)),
        n,
        corrected(chance, float(t[best]), column, gains.shape[1], tried),
        None if other is None else (float(other.mean()), one_test(other)),
        critical * deviation / np.sqrt(n) if deviation else np.inf,
        tried,
        needed(float(mean[best]), deviation, critical),
    )


def corrected(chance: F, t: float, column: F, whole: int, tried: int) -> float:
    """The p-value of the best among all that were tried; `whole` of them met all questions, and `chance` is of those."""
    if len(column) < 2:
        return 1.0
    return share_at_least(chance, t) if whole == tried else min(1.0, tried * one_test(column))


def together(gains: Sequence[F]) -> F:
    """Several probes as one: the gains of each, divided by the standard deviation of its mean gains over the routes.

    gains  of each probe, [Q, C], Q may differ

    Returns [sum of Q, C], weighted so that the mean over rows is the mean over probes: Ng's balanced z, but paired by question.
    """
    rows = sum(map(len, gains))
    out = []
    for some in gains:
        spread = float(some.mean(axis=0).std())
        out.append(some / (spread or 1.0) * (rows / (len(some) * len(gains))))
    return np.concatenate(out)
