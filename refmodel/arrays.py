"""Array aliases and the one protocol that crosses rooms.

Axes have one letter each everywhere: T new tokens, S cached and new tokens, E n_embd, H heads, G key/value heads,
D head_dim; Dk Dv Hk Hv of the delta rule, C convolution channels, K taps of the convolution, N quantized blocks,
O rows and I columns of a matrix, X experts and U of them used for a token. There is no batch axis.
"""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # refmodel.torch needs NumPy and safetensors only
    from gguf import GGMLQuantizationType

F = NDArray[np.floating[Any]]
DType = type[np.floating[Any]]
F32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
NDInt = NDArray[np.integer[Any]]
Blocks = NDArray[np.void]


def keep_pages() -> None:
    """Have the C library keep the memory that arrays leave, tens of megabytes, for the next ones.

    Otherwise every pass gives it back to the system and takes it again page by page, which costs 6 to 8 % of a prompt's time. glibc
    raises its limits to the size of the largest array that was ever freed, up to 32 MiB, so one is made and freed here: no page of
    it is touched. Other libraries have no such limits. Source: M_MMAP_THRESHOLD in mallopt(3).
    """
    np.empty((32 << 20) - (1 << 16), np.uint8)


class Matrix(Protocol):
    """A packed weight [O, I]: rows of quantized blocks over the file's mapping."""

    @property
    def name(self) -> str:
        """The tensor's name, for messages."""
        ...

    @property
    def type(self) -> "GGMLQuantizationType":
        """The tensor type, which says how a row is packed."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(O, I): rows, columns."""
        ...

    @property
    def rows(self) -> Bytes:
        """The packed rows [O, bytes per row], read-only."""
        ...


class Matrices(Protocol):
    """Matrices of one size, stored in order in one tensor: [X, O, I], one for each expert."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, O, I): matrices, rows, columns."""
        ...

    def matrix(self, number: int) -> Matrix:
        """Matrix `number`, [O, I]; no byte of the others is read."""
        ...
