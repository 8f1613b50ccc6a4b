"""In which order llama.cpp has the rows and columns of matrices that transformers has in another, and what it adds to numbers.

Each is known by what a file has that was made without it. Source: llama.cpp conversion/llama.py, permute; conversion/qwen.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arch import Hparams
from ..arrays import F32, Ints


@dataclass(frozen=True)
class Order:
    """An order of rows or of columns.

    of       (sizes of the model, how many rows or columns) -> their numbers in transformers' matrix, in llama.cpp's order
    without  what a file has where this was left out
    """

    of: Callable[[Hparams, int], Ints]
    without: str


@dataclass(frozen=True)
class Change:
    """What is made of each number, in float32.

    of       the function
    without  what a file has where this was left out
    """

    of: Callable[[F32], F32]
    without: str


def neighbours(heads: int, count: int) -> Ints:
    """Rows of heads whose pairs for RoPE are D/2 apart, as llama.cpp's `llama` has them: the two of a pair next to each other."""
    return np.arange(count).reshape(heads, 2, -1).swapaxes(1, 2).ravel()


def tiled(hp: Hparams, count: int) -> Ints:
    """Rows of value heads, transformers' (those of one key head next to each other), as llama.cpp has them: Hk apart."""
    return np.arange(count).reshape(hp.n_k_head, hp.n_v_head // hp.n_k_head, -1).swapaxes(0, 1).ravel()


def after_keys(hp: Hparams, count: int) -> Ints:
    """Rows of queries and keys as they are, then those of value heads tiled."""
    first = 2 * hp.key_dim
    return np.concatenate([np.arange(first), first + tiled(hp, count - first)])


def by_key_head(hp: Hparams, count: int) -> list[Ints]:
    """Rows that transformers has key head by key head: those of queries, keys, values and gates, each together."""
    D, V = hp.d_state, hp.d_state * (hp.n_v_head // hp.n_k_head)
    rows = np.arange(count).reshape(hp.n_k_head, -1)
    return [part.ravel() for part in np.split(rows, [D, 2 * D, 2 * D + V], axis=1)]


NOT_PERMUTED = "its rows are not permuted: the two of each pair that RoPE turns are half a head apart, not neighbours"
GROUPED = "its value heads are grouped by key head, not tiled"
UNSORTED = "its rows are still key head by key head: queries, keys, values and gates are not together"
QUERIES = Order(lambda hp, n: neighbours(hp.n_head, n), NOT_PERMUTED)
KEYS = Order(lambda hp, n: neighbours(hp.n_head_kv, n), NOT_PERMUTED)
TILED = Order(tiled, GROUPED)
QKV_TILED = Order(after_keys, GROUPED)
QKV_TOGETHER = Order(lambda hp, n: np.concatenate(by_key_head(hp, n)[:3]), UNSORTED)
GATES_TOGETHER = Order(lambda hp, n: by_key_head(hp, n)[3], UNSORTED)

ONE_MORE = Change(
    lambda x: x + np.float32(1), "1 is not added: llama.cpp multiplies by the weight itself, transformers by 1 plus it"
)
DECAY = Change(lambda x: -np.exp(x.astype(np.float64)).astype(np.float32), "it is A_log itself, not -exp(A_log)")
