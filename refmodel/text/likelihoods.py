"""From logits to the log-probabilities of tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import F


class Likely(NamedTuple):
    """A token and its log-probability, in nats."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Score:
    """The log-probability of a token where it is, and the likeliest tokens there, the likeliest first."""

    token: int
    logprob: float
    top: tuple[Likely, ...] = ()


def log_softmax(row: F) -> NDArray[np.float64]:
    """The log-probabilities of a row of logits [V], in nats; computed in float64."""
    shifted = row.astype(np.float64) - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def score_of(row: F, token: int, top: int) -> Score:
    """The Score of a token under logits [V], with the `top` likeliest tokens; of equals the smaller id is first."""
    logs = log_softmax(row)
    some = np.argpartition(-logs, top - 1)[:top] if 0 < top < len(logs) else np.arange(len(logs) if top else 0)
    edge = np.flatnonzero(logs >= logs[some].min()) if len(some) else some
    best = edge[np.argsort(-logs[edge], kind="stable")][:top]
    return Score(token, float(logs[token]), tuple(Likely(int(i), float(logs[i])) for i in best))
