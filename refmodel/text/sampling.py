"""From logits to the next token: pure functions of a row, the tokens before it, the settings, and one random number.

The order is that of llama.cpp's sampler chain, of which the parts with no effect by default are left out:

    biases → penalties → top-k → top-p → min-p → temperature → draw

Top-p and min-p see the probabilities before the temperature. Source: common_params_sampling and common_sampler_init in
llama.cpp's common/, llama_sampler_*_apply in src/llama-sampler.cpp. What is computed there in float32 is float64 here, and
the random numbers are NumPy's: the distribution is the same, the tokens drawn from it are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import F, Ints
from ..errors import RefmodelError

RANGES = {"temperature": (0, 1e3), "top_p": (0, 1e3), "min_p": (0, 1), "repeat_penalty": (0.01, 100)}  # NaN is in none
RANGES |= {"frequency_penalty": (-100, 100), "presence_penalty": (-100, 100)}


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults are llama.cpp's, except for the temperature."""

    temperature: float = 0.0  # 0 takes the likeliest token
    top_k: int = 40  # 0 keeps all
    top_p: float = 0.95  # 1 keeps all
    min_p: float = 0.05  # 0 keeps all
    repeat_penalty: float = 1.0  # 1 is none
    repeat_last: int = 64  # tokens that the penalty looks back on, those of the prompt too
    seed: int = 0
    frequency_penalty: float = 0.0  # taken from a logit for each time that its token is among those
    presence_penalty: float = 0.0  # taken once from the logits of those
    biases: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise RefmodelError(
                    f"{name.replace('_', ' ')} is {getattr(self, name):.3g}; expected {least:g} to {most:g}; choose one of these"
                )

    def deciding(self, n_vocab: int) -> int:
        """How many of the likeliest tokens can be chosen at all, at most n_vocab."""
        raises = self.repeat_penalty < 1 or self.frequency_penalty < 0 or self.presence_penalty < 0
        if raises or self.biases or (self.temperature > 0 and self.top_k == 0):
            return n_vocab
        kept = self.top_k if self.temperature > 0 else 1
        lowers = self.repeat_penalty > 1 or self.frequency_penalty > 0 or self.presence_penalty > 0
        return min(kept + (self.repeat_last if lowers else 0), n_vocab)


GREEDY = Sampling()


class Candidates(NamedTuple):
    """Tokens that may come next, the likeliest first: ids [k] and logits [k]."""

    ids: Ints
    logits: NDArray[np.float64]


def choose(ids: Ints, logits: F, before: Sequence[int], how: Sampling, u: float) -> int:
    """The next token: the likeliest, or the one that `u`, a number in [0, 1), selects.

    ids, logits  [k]  `how.deciding` of the likeliest tokens, or all, in any order
    before       the tokens so far; the last `how.repeat_last` of them count

    RefmodelError for a logit that is not a number, or infinite.
    """
    if np.isnan(logits).any() or logits.max(initial=0) == np.inf:
        raise RefmodelError("a logit is not a finite number: this model, or this route, overflows; refmodel trace shows where")
    order = np.argsort(ids)  # of equal logits the smaller id comes first
    ids, row = ids[order], logits[order]
    recent = before[-how.repeat_last :] if how.repeat_last else ()
    row = penalized(ids, biased(ids, row, how.biases), recent, how.repeat_penalty)
    row = counted(ids, row, recent, how.frequency_penalty, how.presence_penalty)
    if how.temperature <= 0:
        return int(ids[row.argmax()])
    kept = min_p(top_p(top_k(row, how.top_k), how.top_p), how.min_p)
    return int(ids[drawn(Candidates(kept.ids, kept.logits / how.temperature), u)])


def biased(ids: Ints, row: F, biases: Sequence[tuple[int, float]]) -> F:
    """The logits [k] of tokens [k], with a number added to those of some tokens."""
    row = row.copy() if biases else row
    for token, bias in biases:
        row[ids == token] += bias
    return row


def counted(ids: Ints, row: F, recent: Sequence[int], frequency: float, presence: float) -> F:
    """The logits [k] of tokens [k], less `frequency` for each time that the token is among `recent`, and `presence` once."""
    if not (frequency or presence) or not len(recent):
        return row
    seen, times = np.unique(np.asarray(recent), return_counts=True)
    count = np.where(np.isin(ids, seen), times[np.searchsorted(seen, ids).clip(max=len(seen) - 1)], 0)
    return row - (count * frequency + (count > 0) * presence).astype(row.dtype)


def penalized(ids: Ints, row: F, recent: Sequence[int], penalty: float) -> F:
    """The logits [k] of tokens [k] with those of recent ones made smaller: positive ones divided by it, others multiplied."""
    if penalty == 1 or not len(recent):
        return row
    return np.where(np.isin(ids, recent), np.where(row > 0, row / penalty, row * penalty), row).astype(row.dtype)


def top_k(row: F, k: int) -> Candidates:
    """The k likeliest tokens of a row of logits [V], all if k is 0; of equal logits the smaller id comes first."""
    ids = np.arange(len(row))
    if 0 < k < len(row):
        ids = np.flatnonzero(row >= np.partition(row, -k)[-k])
    ids = ids[np.argsort(-row[ids], kind="stable")][: k or None]
    return Candidates(ids, row[ids].astype(np.float64))


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of logits [k] in descending order."""
    p = np.exp(logits - logits[0])
    return p / p.sum()


def top_p(c: Candidates, p: float) -> Candidates:
    """The fewest of the likeliest tokens whose probabilities add up to p."""
    if p >= 1:
        return c
    count = np.searchsorted(np.cumsum(probabilities(c.logits)), p) + 1
    return Candidates(c.ids[:count], c.logits[:count])


def min_p(c: Candidates, p: float) -> Candidates:
    """The tokens that are at least p times as probable as the likeliest."""
    if p <= 0:
        return c
    count = np.count_nonzero(c.logits >= c.logits[0] + math.log(min(p, 1.0)))
    return Candidates(c.ids[:count], c.logits[:count])


def drawn(c: Candidates, u: float) -> int:
    """The token that u in [0, 1) selects: the tokens' probabilities, the likeliest first, are laid out along [0, 1)."""
    return int(c.ids[np.searchsorted(np.cumsum(probabilities(c.logits)), u, side="right").clip(max=len(c.ids) - 1)])
