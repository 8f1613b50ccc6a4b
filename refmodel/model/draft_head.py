"""The draft head: a model's prediction block next to its trunk, fed with the same tokens."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arch import Architecture, nextn
from ..arrays import F, Ints
from ..forward.call import Call, passing
from ..forward.weights import Block, Weight
from .likeliest import likeliest


@dataclass(frozen=True)
class Prediction:
    """The weights of a prediction block; embedding, norm and output are its own or the trunk's.

    arch       the architecture, whose block this is
    block      its weights
    embedding  [V, E]
    norm       [E], before the head
    output     the head [V, E]
    """

    arch: Architecture
    block: Block
    embedding: Weight
    norm: Weight
    output: Weight


class DraftHead:
    """What a session's prediction block says about the same tokens.

    weights   the prediction block
    state     what its position remembers
    position  N in its taps' names: the one after the route's last
    guessed   how many guesses were judged
    right     how many of them were right

    Row t of its logits is a guess at the token after t, as the trunk's row is; but it has seen token t's embedding only, and the
    trunk's hidden states of the tokens before. So a guess is there before the trunk has read token t.
    The first token of a sequence comes with a hidden state of zeros. Source: llama.cpp common/speculative.cpp, process.
    """

    def __init__(self, weights: Prediction, state: Any, position: int) -> None:
        self.weights, self.state, self.position = weights, state, position
        self.last: F | None = None  # the trunk's hidden state of the newest token, [1, E]
        self.guessed = self.right = 0

    def feed(self, ids: Ints, hidden: F, c: Call) -> None:
        """Read T tokens.

        ids     [T]     token ids
        hidden  [T, E]  what the trunk's head reads of the same tokens
        c       the trunk's call
        """
        w = self.weights
        before = np.zeros_like(hidden[:1]) if self.last is None else self.last
        inner = c.at(self.position)
        e = c.num.embed(w.embedding, ids, c.num.dtype)
        x = nextn.enter(e, np.concatenate([before, hidden[:-1]]), w.block, inner)
        x = w.arch.block(x, w.block, self.state, replace(inner, named=nextn.named))
        self.hidden, self.call, self.last = nextn.leave(x, w.norm, c), c, hidden[-1:].copy()

    def logits(self) -> F:
        """The guesses at what follows each token of the last call, [T, V]."""
        with passing():
            return nextn.head(self.hidden, self.weights.output, self.call)

    def likeliest(self, k: int = 1) -> tuple[Ints, F]:
        """The ids and logits of the k likeliest tokens after the last one, both [k], the likeliest first."""
        with passing():
            return likeliest(lambda rows: nextn.head(self.hidden[-1:], rows, self.call), self.weights.output, k)

    def judge(self, token: int) -> None:
        """Count whether the guess at what follows the last token was right; `token` is what the trunk chose."""
        self.guessed += 1
        self.right += int(self.likeliest()[0][0]) == token
