"""Probes over a text: how well each token is foretold, and how far the model is from the unrouted one. Nothing is generated."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...arrays import F, Ints
from ...errors import SweepError
from ...machine.threads import used
from .probe import Answer, Call, Facts, Unrouted, digest

CHUNK = 512  # tokens of one sequence, as llama.cpp's perplexity has it
TOGETHER = 16  # neighbouring tokens that are resampled as one
ROWS = 32  # tokens whose logits are read at once: they stay in the processor's cache


def by_parts(out: F, step: Callable[..., F], *xs: F | Ints) -> F:
    """Fill `out` with step(*xs), ROWS rows of all of them at a time, in threads. A row does not depend on the others."""

    def some(start: int) -> None:
        rows = slice(start, start + ROWS)
        out[rows] = step(*(x[rows] for x in xs))

    with ThreadPoolExecutor(used()) as pool:
        list(pool.map(some, range(0, len(out), ROWS)))
    return out


def log_likelihoods(logits: F, targets: Ints) -> F:
    """The log-probability of a given token at each place, in nats: [T, V] and ids [T] -> float64 [T].

    The exponentials have the dtype of the logits, their sum is float64.
    """

    def of(some: F, ids: Ints) -> F:
        top = some.max(axis=1, keepdims=True)
        total = np.exp(some - top).sum(axis=1, dtype=np.float64)
        return some[np.arange(len(some)), ids].astype(np.float64) - top[:, 0] - np.log(total)

    return by_parts(np.empty(len(targets)), of, logits, targets)


def losses(targets: Ints, logits: F) -> F:
    """The negative log-likelihood of the tokens that come, in nats: ids [T], logits [T, V] -> float64 [T]."""
    return -log_likelihoods(logits, targets)


def log_softmax(rows: F) -> F:
    """The log-softmax of each row, [T, V] in the dtype of the rows; the sum is float64."""
    rows = rows - rows.max(axis=1, keepdims=True)
    return (rows - np.log(np.exp(rows).sum(axis=1, keepdims=True, dtype=np.float64))).astype(rows.dtype)


def log_probabilities(logits: F) -> F:
    """The log-softmax of each row, [T, V] in the dtype of the logits."""
    return by_parts(np.empty_like(logits), log_softmax, logits)


def divergences(reference: F, logits: F) -> F:
    """The Kullback-Leibler divergence of each row from the reference, sum of p (log p - log q), in nats: float64 [T].

    reference  log-probabilities [T, V] of the unrouted model
    logits     [T, V]
    """

    def of(p: F, some: F) -> F:
        return (np.exp(p) * (p - log_softmax(some))).sum(axis=1, dtype=np.float64)

    return by_parts(np.empty(len(reference)), of, reference, logits)


@dataclass(frozen=True)
class Text:
    """A text as sequences of at most CHUNK tokens; each token but the first of a sequence is one question.

    name         of the probe
    sequences    token ids
    distance     False: the score is the negative log-likelihood of the token, in nats. True: the divergence, before that token,
                 from the model in its own order
    held_out_of  the probe whose winners this one checks; empty for a probe of its own
    """

    name: str
    sequences: tuple[tuple[int, ...], ...]
    distance: bool = False
    held_out_of: str = ""

    @property
    def facts(self) -> Facts:
        """A question is a token; lower is better."""
        kind = "kl" if self.distance else "nll"
        questions = sum(len(tokens) - 1 for tokens in self.sequences)
        return Facts(self.name, digest(kind, self.sequences), questions, True, TOGETHER, self.held_out_of)

    def spans(self, first: int, stop: int) -> list[tuple[tuple[int, ...], int, int]]:
        """(sequence, a, b) of the questions first to stop: its tokens a+1 to b are asked for."""
        found, start = [], 0
        for tokens in self.sequences:
            a, b = max(first - start, 0), min(stop - start, len(tokens) - 1)
            if a < b:
                found.append((tokens, a, b))
            start += len(tokens) - 1
        return found

    def calls(self, first: int, stop: int, unrouted: Unrouted) -> list[Call]:
        """Each sequence up to the last token that is asked about."""
        calls = []
        for tokens, a, b in self.spans(first, stop):
            if self.distance:
                take = partial(divergences, log_probabilities(unrouted(tokens[:b])[a:]))
            else:
                take = partial(losses, np.array(tokens[a + 1 : b + 1]))
            calls.append(Call(tokens[:b], take, a))
        return calls

    def answers(self, first: int, stop: int, taken: Sequence[F]) -> list[Answer]:
        """One score a token."""
        return [Answer(float(score)) for scores in taken for score in scores]


def text_probe(name: str, ids: Sequence[int], begin: int | None, distance: bool, held_out_of: str = "") -> Text:
    """The probe over a text.

    ids       its token ids, without a begin token
    begin     the token that every sequence begins with, if the model asks for one
    distance, held_out_of  as Text has them

    SweepError for a text of fewer than two tokens.
    """
    head = () if begin is None else (begin,)
    room = CHUNK - len(head)
    pieces = [head + tuple(ids[start : start + room]) for start in range(0, len(ids), room)]
    sequences = tuple(piece for piece in pieces if len(piece) > 1)
    if not sequences:
        raise SweepError(f"--probe {name}: the text has {len(ids)} tokens; expected at least two; give a longer text")
    return Text(name, sequences, distance, held_out_of)
