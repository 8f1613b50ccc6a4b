"""The likeliest tokens, without the logits of all: the head's rows are multiplied a part at a time, and the best are kept."""

from collections.abc import Callable, Iterator

import numpy as np

from ..arrays import F, Ints
from ..forward.weights import Rows, Weight

AT_ONCE = 1 << 18  # rows, a multiple of 8: 1 MB of logits at most. Each part costs a start of all threads
FIRST = 1 << 12  # logits that are ranked on their own: few of the others are better than the best of these


def parts(rows: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of parts that cover all rows of a head.

    The last one begins earlier than its turn, so that all are equally long and their length modulo 8 is that of the whole:
    llama.cpp chooses its way to multiply by that number.
    """
    size = -(-rows // -(-rows // AT_ONCE))
    size = min(rows, size + (rows - size) % 8)
    for start in range(0, rows, size):
        yield min(start, rows - size), min(start + size, rows)


Best = tuple[Ints, F]
"""The ids and logits of the k largest logits of a token, both [k], the largest first; of equals the smaller id first."""


def likeliest(logits: Callable[[Rows], F], output: Weight, k: int) -> list[Best]:
    """The k likeliest next tokens of each of T tokens.

    logits  rows of the head [O, E] -> their logits [T, O]
    output  the head [V, E]
    k       at most V

    NaN comes before any number, so that who asks for the likeliest sees that the model does not compute one.
    """
    best, seen = list[Best](), 0
    for start, stop in parts(output.shape[0]):
        new = logits(Rows(output, start, stop))[:, seen - start :]
        best = best or [(np.zeros(0, np.int64), row[:0]) for row in new]
        for some in (new[:, :FIRST], new[:, FIRST:]) if new.shape[1] > FIRST else (new,):
            best = [kept(*one, seen, row, k) for one, row in zip(best, some, strict=True)]
            seen += some.shape[1]
    return best


def kept(ids: Ints, values: F, first: int, new: F, k: int) -> Best:
    """The ids and logits of the best k of those kept so far and of `new`, whose ids count from `first`."""
    edge = values[-1] if len(values) == k else kth(new, k)
    some = np.flatnonzero(~(new <= edge) if len(values) == k else ~(new < edge))  # a NaN stays
    ids, values = np.concatenate([ids, first + some]), np.concatenate([values, new[some]])
    if len(values) == 1:
        return ids, values
    order = np.argsort(np.where(np.isnan(values), -np.inf, -values), kind="stable")[:k]
    return ids[order], values[order]


def kth(values: F, k: int) -> float:
    """The k-th largest of some values [n]; NaN if there are no more than k, and it may be NaN if one of them is."""
    if len(values) <= k:
        return np.nan
    return float(values.max() if k == 1 else -np.partition(-values, k - 1)[k - 1])
