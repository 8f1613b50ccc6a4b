"""What a position of the route remembers between calls. A block that stands at two positions has two states."""

from dataclasses import dataclass

import numpy as np

from .arrays import DType, F


class KeyValues:
    """The cached keys and values of one attention position; the buffers double when they are full."""

    def __init__(self, n_head_kv: int, head_dim: int, dtype: DType) -> None:
        self.length = 0
        self._k = np.empty((0, n_head_kv, head_dim), dtype)
        self._v = self._k.copy()

    @property
    def bytes_of_token(self) -> int:
        return int(self._k[:0].itemsize * np.prod(self._k.shape[1:]) * 2)

    def append(self, k: F, v: F) -> tuple[F, F]:
        """Add k, v [T, G, D]; returns all S keys and values, [S, G, D], as views."""
        end = self.length + len(k)
        if end > len(self._k):
            self._k, self._v = (self._grown(a, end) for a in (self._k, self._v))
        self._k[self.length : end], self._v[self.length : end] = k, v
        self.length = end
        return self._k[:end], self._v[:end]

    def _grown(self, old: F, end: int) -> F:
        new = np.empty((max(end, 2 * len(old)), *old.shape[1:]), old.dtype)
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


State = KeyValues | Recurrent
