"""What a position of the route remembers between calls. A block at two positions has two states.

A state can be forked: two sequences go on from it, and share what it holds until one of them writes. And it can go back: tokens
that a draft guessed wrong are forgotten, to the bit.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import F


@dataclass
class Filled:
    """How many cells of a pair of buffers are filled, by whichever of the forks that share them; `shared` of them by several."""

    cells: int = 0
    shared: int = 0


class KeyValues:
    """The cached keys and values of one attention position, [G, S, D] in memory: each head's keys are contiguous.

    length  S, the tokens in the cache
    room    tokens that were reserved

    The buffers have the dtype of the first keys; they double when they are full, or have the size that was reserved. Forks share
    them: cells after its own tokens belong to the fork that fills them first, and the others copy what they have.
    """

    def __init__(self, n_head_kv: int, head_dim: int) -> None:
        self.length = self.room = 0
        self._k = self._v = np.empty((n_head_kv, 0, head_dim), np.float32)
        self._filled = Filled()

    def append(self, k: F, v: F) -> tuple[F, F]:
        """Add k, v [T, G, D] of the new tokens; returns all S keys and values, [S, G, D] each, as views."""
        start, self.length = self.length, self.length + len(k)
        if self.length > self._k.shape[1] or self._filled.cells != start:
            self._k, self._v = (self._grown(a, start, k.dtype) for a in (self._k, self._v))
            self._filled = Filled()
        self._filled.cells = self.length
        for cache, new in ((self._k, k), (self._v, v)):
            cache[:, start : self.length] = new.transpose(1, 0, 2)
        return self._k[:, : self.length].transpose(1, 0, 2), self._v[:, : self.length].transpose(1, 0, 2)

    def fork(self) -> "KeyValues":
        """Another one with the same tokens, which shares the buffers."""
        self._filled.shared = max(self._filled.shared, self.length)
        return copy(self)

    def keep(self, steps: int) -> None:
        """Does nothing: keys and values of any number of tokens can be forgotten."""

    def back(self, steps: int) -> None:
        """Forget the last tokens. Cells that a fork still has stay filled, so that the next tokens go into a copy."""
        mine = self._filled.cells == self.length
        self.length -= steps
        if mine and self.length >= self._filled.shared:
            self._filled.cells = self.length

    def bytes(self, tokens: int, dtype: Any) -> int:
        """Bytes that keys and values of `tokens` tokens take in that dtype."""
        heads, _, width = self._k.shape
        return 2 * tokens * heads * width * np.dtype(dtype).itemsize

    def reserve(self, tokens: int) -> None:
        """Let the next buffers have room for `tokens` tokens in all."""
        self.room = max(self.room, tokens)

    def _grown(self, old: F, start: int, dtype: Any) -> F:
        size = self.room if self.room >= self.length else 2 * max(self.length, 64)
        new = np.empty((old.shape[0], size, old.shape[2]), dtype)
        new[:, :start] = old[:, :start]
        return new


class Trail:
    """An array that is replaced at each step, and those before it, as far back as one may have to go.

    values  the oldest first; the last one counts
    kept    how many before the last are kept
    """

    def __init__(self, now: F) -> None:
        self.values: tuple[F, ...] = (now,)
        self.kept = 0

    @property
    def now(self) -> F:
        """The array that counts."""
        return self.values[-1]

    def add(self, new: F) -> None:
        """Take a step: another array counts."""
        self.values = (*self.values, new)[-1 - self.kept :]

    def back(self, steps: int) -> None:
        """Take that many steps back."""
        self.values = self.values[: len(self.values) - steps]


class Convolved:
    """What a position with a convolution alone remembers; zeros before the first token.

    conv   [K-1, C]  the last inputs of the convolution; replaced at each call, and never written to
    """

    def __init__(self, conv: F) -> None:
        self._conv = Trail(conv)

    @property
    def conv(self) -> F:
        """The inputs that the next call reads."""
        return self._conv.now

    @conv.setter
    def conv(self, new: F) -> None:
        self._conv.add(new)

    def fork(self) -> "Convolved":
        """Another one with the same inputs."""
        return Convolved(self.conv)

    def keep(self, steps: int) -> None:
        """From now on one can go back that many calls of one token."""
        self._conv.kept = steps

    def back(self, steps: int) -> None:
        """Forget the last calls, of one token each; `keep` says how many are known."""
        self._conv.back(steps)

    def bytes(self, tokens: int, dtype: Any) -> int:
        """Bytes of the inputs: the same for any number of tokens and any dtype of the cache."""
        return (1 + self._conv.kept) * self.conv.nbytes

    def reserve(self, tokens: int) -> None:
        """Does nothing: this state does not grow."""


class Recurrent:
    """What a position with the gated delta rule remembers; zeros before the first token.

    convolved  what its convolution remembers
    delta      [Hv, Dv, Dk]  the state S of the delta rule
    shared     whether a fork may have the same array `delta`
    """

    def __init__(self, conv: F, delta: F) -> None:
        self.convolved, self._delta, self.shared = Convolved(conv), Trail(delta), False

    @property
    def conv(self) -> F:
        """[K-1, C], the last inputs of the convolution; replaced at each call, and never written to."""
        return self.convolved.conv

    @conv.setter
    def conv(self, new: F) -> None:
        self.convolved.conv = new

    @property
    def delta(self) -> F:
        """The state that the next call reads."""
        return self._delta.now

    @delta.setter
    def delta(self, new: F) -> None:
        self._delta.add(new)
        self.shared = False

    def fork(self) -> "Recurrent":
        """Another one with the same states."""
        other = Recurrent(self.conv, self.delta)
        self.shared = other.shared = True
        return other

    def next_delta(self) -> F:
        """An array for the next `delta`, to be written whole: `delta` itself, unless a fork or a step back may need that."""
        return np.empty_like(self.delta) if self.shared or self._delta.kept else self.delta

    def keep(self, steps: int) -> None:
        """From now on one can go back that many calls of one token."""
        self.convolved.keep(steps)
        self._delta.kept = steps

    def back(self, steps: int) -> None:
        """Forget the last calls, of one token each; `keep` says how many are known."""
        self.convolved.back(steps)
        self._delta.back(steps)
        self.shared = True  # it may be one that a fork took before the steps

    def bytes(self, tokens: int, dtype: Any) -> int:
        """Bytes of both states: the same for any number of tokens and any dtype of the cache."""
        return self.convolved.bytes(tokens, dtype) + (1 + self._delta.kept) * self.delta.nbytes

    def reserve(self, tokens: int) -> None:
        """Does nothing: these states do not grow."""


State = KeyValues | Recurrent | Convolved
