"""What a position of the route remembers between calls. A block at two positions has two states.

A state can be forked: two sequences go on from it, and share what it holds until one of them writes.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import F


@dataclass
class Filled:
    """How many cells of a pair of buffers are filled, by whichever of the forks that share them."""

    cells: int = 0


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
        return copy(self)

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


@dataclass
class Recurrent:
    """What a position with the gated delta rule remembers; zeros before the first token.

    conv   [K-1, C]      the last inputs of the convolution
    delta  [Hv, Dv, Dk]  the state S of the delta rule
    shared whether a fork may have the same array `delta`; `conv` is replaced at each call, and never written to
    """

    conv: F
    delta: F
    shared: bool = False

    def fork(self) -> "Recurrent":
        """Another one with the same states."""
        self.shared = True
        return replace(self)

    def own_delta(self) -> F:
        """`delta`, to be overwritten whole: if a fork may have the same array, another one takes its place, with any numbers."""
        if self.shared:
            self.delta, self.shared = np.empty_like(self.delta), False
        return self.delta

    def bytes(self, tokens: int, dtype: Any) -> int:
        """Bytes of both states: the same for any number of tokens and any dtype of the cache."""
        return self.conv.nbytes + self.delta.nbytes

    def reserve(self, tokens: int) -> None:
        """Does nothing: these states do not grow."""


@dataclass
class Convolved:
    """What a position with a convolution alone remembers; zeros before the first token.

    conv   [K-1, C]  the last inputs of the convolution
    """

    conv: F

    def fork(self) -> "Convolved":
        """Another one with the same inputs."""
        return replace(self)

    def bytes(self, tokens: int, dtype: Any) -> int:
        """Bytes of the inputs: the same for any number of tokens and any dtype of the cache."""
        return self.conv.nbytes

    def reserve(self, tokens: int) -> None:
        """Does nothing: this state does not grow."""


State = KeyValues | Recurrent | Convolved
