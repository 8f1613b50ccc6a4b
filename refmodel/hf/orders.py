"""In which order llama.cpp has the rows and columns of matrices that transformers has in another, and what it adds to numbers.

Each has words for a GGUF that was made without it, for a folder that still has what llama.cpp has, and for mistakes that are made
instead. Source: llama.cpp conversion/llama.py, permute; conversion/qwen.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arch import Hparams
from ..arrays import F32, Ints

Arrange = Callable[[Hparams, int], Ints]
Compute = Callable[[F32], F32]


@dataclass(frozen=True)
class Order:
    """An order of rows or of columns.

    of        (sizes of the model, how many rows or columns) -> their numbers in transformers' matrix, in llama.cpp's order
    without   what a GGUF has where this was left out
    kept      what a folder has where it was not undone
    mistakes  other orders that converters have made, and what they are
    """

    of: Arrange
    without: str
    kept: str
    mistakes: tuple[tuple[Arrange, str], ...] = ()


@dataclass(frozen=True)
class Change:
    """What is made of each number, in float32.

    of        the function
    without   what a GGUF has where this was left out
    kept      what a folder has where it was not undone
    mistakes  other functions that converters have used, and what they are
    """

    of: Compute
    without: str
    kept: str
    mistakes: tuple[tuple[Compute, str], ...] = ()


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


PERMUTED = (
    "its rows are not permuted: the two of each pair that RoPE turns are half a head apart, not neighbours",
    "its rows are permuted as in a GGUF: the two of each pair that RoPE turns are neighbours, not half a head apart",
)
TILES = (
    "its value heads are grouped by key head, not tiled",
    "its value heads are tiled as in a GGUF, not grouped by key head",
)
SORTED = (
    "its rows are still key head by key head: queries, keys, values and gates are not together",
    "its rows are sorted as in a GGUF, not key head by key head",
)


def backwards(of: Arrange) -> tuple[Arrange, str]:
    """The mistake of an order that is made the wrong way round."""
    return lambda hp, n: np.argsort(of(hp, n)), "its rows are permuted the wrong way round"


def of_queries(hp: Hparams, count: int) -> Ints:
    """Rows of queries, pairs next to each other."""
    return neighbours(hp.n_head, count)


def of_keys(hp: Hparams, count: int) -> Ints:
    """Rows of keys, pairs next to each other."""
    return neighbours(hp.n_head_kv, count)


QUERIES = Order(
    of_queries,
    *PERMUTED,
    (backwards(of_queries), (of_keys, "its rows are permuted with the number of key heads, not of query heads")),
)
KEYS = Order(
    of_keys, *PERMUTED, (backwards(of_keys), (of_queries, "its rows are permuted with the number of query heads, not of key heads"))
)
TILED = Order(tiled, *TILES, (backwards(tiled),))
QKV_TILED = Order(
    after_keys, *TILES, (backwards(after_keys), (tiled, "its queries and keys are tiled too; only the values should be"))
)
QKV_TOGETHER = Order(lambda hp, n: np.concatenate(by_key_head(hp, n)[:3]), *SORTED)
GATES_TOGETHER = Order(lambda hp, n: by_key_head(hp, n)[3], *SORTED)


def exponential(x: F32) -> F32:
    """e^x, through float64."""
    return np.exp(x.astype(np.float64)).astype(np.float32)


ADDED = "1 is added, which this norm does not have"
ONE_MORE = Change(
    lambda x: x + np.float32(1),
    "1 is not added: llama.cpp multiplies by the weight itself, transformers by 1 plus it",
    "1 is not subtracted: transformers multiplies by 1 plus the weight, llama.cpp by the weight itself",
    ((lambda x: x + np.float32(2), "1 is added twice"), (lambda x: x - np.float32(1), "1 is subtracted, not added")),
)
DECAY = Change(
    lambda x: -exponential(x),
    "it is A_log itself, not -exp(A_log)",
    "it is -exp(A_log) as in a GGUF, not A_log",
    ((exponential, "its sign is missing: it is exp(A_log), not -exp(A_log)"), (lambda x: -x, "it is -A_log, not -exp(A_log)")),
)
PLAIN = Change(lambda x: x, "", "", ((ONE_MORE.of, ADDED),))
