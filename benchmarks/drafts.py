"""Guessed tokens in numbers: what a pass of a token and its guesses costs, against a pass of the token by itself.

    python -m benchmarks.drafts MODEL [--numerics fast] [--rounds 7] [--most 3] [--clock processor]

MODEL has a prediction block (MTP). All sides take turns in one run. Printed are medians of the seconds, the median ratio of each
round to a pass of one token, and what follows for the speed of writing where a share of the guesses is right: each of those saves
a pass.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import refmodel

from .batches import CLOCKS, seconds

PROMPT, SHARES = 16, (0.4, 0.6, 0.8, 1.0)


def sides(model: refmodel.Model, numerics: str, most: int) -> dict[str, Callable[[], object]]:
    """A pass of one token; for each number of guesses the guessing, and the pass of a token with them."""
    prompt = [(10 + i) % model.n_vocab for i in range(PROMPT)]
    session = model.session(numerics=numerics, mtp=True)
    plain = model.session(numerics=numerics)
    for each in (session, plain):
        each.forward(prompt, "last")
    found: dict[str, Callable[[], object]] = {"one token": lambda: plain.likeliest([7])}
    for guesses in range(1, most + 1):
        found[f"guessing {guesses}"] = partial(session.guesses, 7, guesses)
        found[f"with {guesses}"] = partial(session.ahead, [7, *range(guesses)])
    return found


def measured(model: refmodel.Model, numerics: str, most: int, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of each side, their ratios to one token, and the speed that follows, as a ratio to writing without guesses."""
    turns = sides(model, numerics, most)
    took: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, do in turns.items():
            spent = seconds(do, clock)
            if number:  # the first round warms up
                took[name].append(spent)
    ratios = {name: [a / b for a, b in zip(took[name], took["one token"], strict=True)] for name in turns}
    speed = {}
    for guesses in range(1, most + 1):
        cost = [a + b for a, b in zip(ratios[f"guessing {guesses}"], ratios[f"with {guesses}"], strict=True)]
        tokens = {share: sum(share**n for n in range(guesses + 1)) for share in SHARES}  # of a pass: a wrong guess ends it
        speed[f"{guesses} guessed"] = {str(share): round(tokens[share] / median(cost), 3) for share in SHARES}
    return {
        "seconds": {name: round(median(values), 5) for name, values in took.items()},
        "to one token": {name: round(median(values), 3) for name, values in ratios.items()},
        "speed by the share of guesses that are right": speed,
        "rounds": rounds,
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--numerics", default="fast")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=int, default=3, help="guesses in a pass")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="as of benchmarks.batches")
    given = parser.parse_args()
    found = measured(refmodel.load(given.model), given.numerics, given.most, given.rounds, CLOCKS[given.clock])
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
