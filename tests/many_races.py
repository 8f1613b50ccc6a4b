"""Races and verdicts on simulated sweeps whose truth is known.

    python tests/many_races.py --count 100 --ledger FULL.db     # a full sweep, `refmodel sweep MODEL --all --probe nll:TEXT`
    python tests/many_races.py --count 200                      # the null only

With a ledger: sweeps are drawn from its scores by resampling the questions, each is raced, and the five best of the race must
contain a route whose mean gain over all questions is within the interval of the best route. Then the null: sweeps of pure noise
of several kinds; how many announce a winner, from all scores and from a race. Not collected by pytest: it takes minutes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

from refmodel.sweep.ledger import opened  # noqa: E402
from refmodel.sweep.race import raced, rungs  # noqa: E402
from refmodel.sweep.results import results  # noqa: E402
from refmodel.sweep.score import intervals, standing  # noqa: E402
from refmodel.sweep.verdict import complete, gains_of, seen_probes  # noqa: E402

NOISE = {
    "normal": lambda r, n, c: r.standard_normal((n, c)),
    "right or wrong, 3 of 10": lambda r, n, c: (r.random((n, c)) < 0.3).astype(float),
    "right or wrong, 9 of 10": lambda r, n, c: (r.random((n, c)) < 0.9).astype(float),
    "heavy tails": lambda r, n, c: r.standard_t(3, (n, c)),
    "partial credit": lambda r, n, c: r.beta(0.3, 0.7, (n, c)) * (r.random((n, 1)) < 0.7),
}


def read(path: Path) -> np.ndarray:
    """The gains [groups of questions, routes] of a full sweep."""
    with opened(path) as ledger:
        found = results(ledger)
    probes = seen_probes(found)
    return gains_of(found, complete(found, probes), probes, [found.about.probes[name]["questions"] for name in probes])


def race(gains: np.ndarray) -> "tuple[list[int], int, float]":
    """The routes that met all questions, the best first; how many answers that took, and the confidence that is reported."""
    marks = rungs(len(gains))
    done = raced(gains.shape[1], marks, lambda columns, rung: gains[: marks[rung]][:, columns])
    return list(done.order), done.asked, done.sure


def races(path: Path, count: int, r: np.random.Generator) -> bool:
    """Race sweeps that are resampled from a ledger. Whether at least 95 of 100 find a route as good as the best."""
    real, right, same, asked, sure = read(path), 0, 0, [], []
    for _ in range(count):
        gains = real[r.integers(0, len(real), len(real))]
        mean = gains.mean(axis=0)
        best = int(mean.argmax())
        low = intervals(gains[:, [best]])[0, 0]
        order, answers, confidence = race(gains)
        right += bool((mean[order[:5]] >= low).any())
        same += best in order[:5]
        asked.append(answers / gains.size)
        sure.append(confidence)
    print(f"{path.name}: {real.shape[1]} routes, {len(real)} groups of questions, {count} simulated sweeps")
    print(f"  the best five of the race contain one within the interval of the best: {right}; the best itself: {same}")
    print(f"  answers asked for: {100 * np.mean(asked):.0f} %; confidence that was reported: {100 * np.mean(sure):.0f} %")
    return right >= 0.95 * count


def null(count: int, r: np.random.Generator) -> bool:
    """Sweeps of pure noise. Whether at most one in twenty announces a winner."""
    wins, raced_wins = 0, 0
    for number in range(count):
        make = NOISE[list(NOISE)[number % len(NOISE)]]
        questions, routes = [(16, 300), (32, 465), (64, 78)][number // len(NOISE) % 3]
        scores = make(r, questions, routes + 1)
        gains = scores[:, 1:] - scores[:, :1]
        wins += standing(gains).wins
        order, _, _ = race(gains)
        raced_wins += standing(gains[:, order], tried=routes).wins
    print(f"null: {count} sweeps of noise; {wins} announce a winner from all scores, {raced_wins} from a race")
    return max(wins, raced_wins) <= 0.05 * count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--ledger", type=Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    r = np.random.default_rng(arguments.seed)
    good = [races(path, arguments.count, r) for path in arguments.ledger] + [null(2 * arguments.count, r)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
