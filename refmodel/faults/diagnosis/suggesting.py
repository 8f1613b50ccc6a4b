"""The input that tells faults apart, where what was recorded does not."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from ...model.model import Model
from ...numerics import REFERENCE
from ..fault import Engine, Fault, with_all
from .accepting import Answer
from .running import distance

LENGTHS = (8, 16, 32, 64)  # tokens that are tried
DRAWS = 3  # of each length
SEEN = 1e-6  # NMSE of logits that is seen in any dump


def telling_tokens(model: Model, other: Other, answer: Answer, seen: Callable[[str], None]) -> list[int]:
    """The shortest tokens under which all these faults give other logits, from one another; none if there are none such.

    seen  called with what is being tried

    The last tokens' logits are compared. Errors as Session.forward raises them.
    """
    sets = [answer.faults, *answer.same_as]
    best, farthest = list[int](), 0.0
    for length in LENGTHS:
        for draw in range(DRAWS):
            ids = np.random.default_rng([length, draw]).integers(0, model.n_vocab, length).tolist()
            seen(f"{length} tokens")
            nearest = least_distance(model, other, sets, ids)
            if nearest > farthest:
                best, farthest = ids, nearest
        if farthest > SEEN:
            break
    return best


def least_distance(model: Model, other: Other, sets: Sequence[Sequence[Fault]], ids: list[int]) -> float:
    """The least NMSE between the logits of any two of these sets of faults after some tokens."""
    logits = list[F]()
    for faults in sets:
        engine = with_all(faults, Engine(model, REFERENCE))
        if engine is not None:
            logits.append(engine.forward(ids, other.route, "last"))
    return min((distance(a, b) for a, b in combinations(logits, 2)), default=0.0)
