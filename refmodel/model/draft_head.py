"""The draft head: a model's prediction block next to its trunk, fed with the same tokens."""

from dataclasses import dataclass, replace

import numpy as np

from ..arch import Architecture, nextn
from ..arrays import F, Ints
from ..forward.call import Call, passing
from ..forward.state import KeyValues
from ..forward.weights import Block, Rows, Weight
from .likeliest import Best, likeliest

USUAL, MOST = 1 << 14, 0.95  # rows of the head that a guess is looked for among, at least; the share of the text's tokens


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
    saved     passes of the trunk that right guesses saved, for they had been fed with the token before

    Row t of its logits is a guess at the token after t, as the trunk's row is; but it has seen token t's embedding only, and the
    trunk's hidden states of the tokens before. So a guess is there before the trunk has read token t.
    The first token of a sequence comes with a hidden state of zeros. Source: llama.cpp common/speculative.cpp, process.
    """

    def __init__(self, weights: Prediction, state: KeyValues, position: int) -> None:
        self.weights, self.state, self.position = weights, state, position
        self.unread: list[int] = []  # tokens that the trunk has read and the block has not
        self.before: F | None = None  # the trunk's hidden state before each token that the block can read, [unread + 0 or 1, E]
        self.guessed = self.right = self.saved = 0
        self.small = {USUAL << n: 0 for n in range(20)}  # how many of the tokens read have smaller numbers

    def learn(self, ids: Ints, hidden: F) -> None:
        """Take from the trunk what its head reads [T, E] of T new tokens, ids [T]. The first one may have been read already."""
        before = np.zeros_like(hidden[:1]) if self.before is None else self.before
        known = len(before) == len(self.unread)
        self.unread += ids[known:].tolist()
        self.before = np.concatenate([before, hidden])

    def unlearn(self, tokens: int) -> None:
        """Forget the last tokens, which were learnt and not read."""
        assert self.before is not None
        self.unread, self.before = self.unread[: len(self.unread) - tokens], self.before[: len(self.before) - tokens]

    def read(self, c: Call, token: int | None = None) -> None:
        """Read the tokens that the trunk has read, and one more if it is given; c is the trunk's call."""
        ids = np.array(self.unread if token is None else [*self.unread, token], np.int64)
        assert self.before is not None
        before, self.before, self.unread = self.before[: len(ids)], self.before[len(ids) :], []
        self.hidden, self.call = self._passed(ids, before, c), c

    def guesses(self, token: int, most: int, c: Call) -> list[int]:
        """Up to `most` guesses, at least one, at what follows a token that the trunk has not read; each after the first from the
        one before it and from what the block made of that."""
        self.read(c, token)
        hidden, found, rows = self.hidden, list[int](), Rows(self.weights.output, 0, self._usual())
        while True:
            found.append(int(nextn.head(hidden[-1:], rows, c).argmax()))
            if len(found) == most:
                break
            hidden = self._passed(np.array(found[-1:]), hidden[-1:], c)
        self.state.back(most - 1)
        return found

    def logits(self) -> F:
        """The guesses at what follows each token of the last call, [T, V]."""
        with passing():
            return nextn.head(self.hidden, self.weights.output, self.call)

    def likeliest(self, k: int = 1) -> Best:
        """The ids and logits of the k likeliest tokens after the last one, both [k], the likeliest first."""
        with passing():
            return self._likeliest(self.hidden, k)

    def judge(self, guess: int, token: int) -> None:
        """Count whether a guess was right; `token` is what the trunk chose."""
        self.guessed += 1
        self.right += guess == token

    def _passed(self, ids: Ints, before: F, c: Call) -> F:
        """What the head reads [T, E] of the next tokens, ids [T], with the hidden state before each [T, E]."""
        for rows in self.small:
            self.small[rows] += int((ids < rows).sum())
        w, pos = self.weights, self.state.length + np.arange(len(ids))
        inner = replace(c.at(self.position), pos=pos, parts=())
        x = nextn.enter(c.num.embed(w.embedding, ids, c.num.dtype), before, w.block, inner)
        x = w.arch.block(x, w.block, self.state, replace(inner, named=nextn.named))
        return nextn.leave(x, w.norm, replace(c, parts=()))

    def _usual(self) -> int:
        """How many rows of the head are worth reading for a guess: a vocabulary has its frequent tokens first, and a large one has
        many that a text never uses. So many, a power of two times USUAL, that most tokens read so far are among them."""
        rows = USUAL
        while rows < self.weights.output.shape[0] and self.small[rows] < MOST * self.state.length:
            rows *= 2
        return min(rows, self.weights.output.shape[0])

    def _likeliest(self, hidden: F, k: int) -> Best:
        return likeliest(lambda rows: nextn.head(hidden[-1:], rows, self.call), self.weights.output, k)[0]
