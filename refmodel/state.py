"""What a position of the route remembers between calls. A block that stands at two positions has two states."""

import math
from dataclasses import dataclass

import numpy as np

from .arrays import DType, F


class KeyValues:
    """The cached keys and values of one attention position; the buffers double when they are full, or are reserved."""

    def __init__(self, n_head_kv: int, head_dim: int, dtype: DType) -> None:
        self.length = 0
        self._k = np.empty((0, n_head_kv, head_dim), dtype)
        self._v = self._k.copy()

    def append(self, k: F, v: F) -> tuple[F, F]:
        """Add k, v [T, G, D]; returns all S keys and values, [S, G, D], as views."""
        end = self.length + len(k)
        if end > len(self._k):
            self.reserve(max(end, 2 * len(self._k)))
        self._k[self.length : end], self._v[self.length : end] = k, v
        self.length = end
        return self._k[:end], self._v[:end]

    def bytes(self, tokens: int) -> int:
        """What keys and values of so many tokens take."""
        return 2 * tokens * math.prod(self._k.shape[1:]) * self._k.itemsize

    def reserve(self, tokens: int) -> None:
        """Room for so many tokens in all."""
        if tokens > len(self._k):
            self._k, self._v = (self._grown(a, tokens) for a in (self._k, self._v))

    def _grown(self, old: F, size: int) -> F:
        new = np.empty((size, *old.shape[1:]), old.dtype)
        new[: self.length] = old[: self.length]
        return new


@dataclass
class Recurrent:
    """What a DeltaNet position remembers; zeros before the first token.

    conv   [K-1, C]      the last inputs of the convolution
    delta  [Hv, Dv, Dk]  the state S of the delta rule
    """

    conv: F
    delta: F

    def bytes(self, tokens: int) -> int:
        """The same for any number of tokens."""
        return self.conv.nbytes + self.delta.nbytes

    def reserve(self, tokens: int) -> None:
        """Nothing grows."""


State = KeyValues | Recurrent
