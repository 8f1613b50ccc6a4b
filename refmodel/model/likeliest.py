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


def likeliest(logits: Callable[[Rows], F], output: Weight, k: int) -> tuple[Ints, F]:
    """The ids and logits of the k largest logits, both [k], the largest first; of equals the smaller id first.

    logits  rows of the head [O, E] -> their logits [1, O]
    output  the head [V, E]
    k       at most V

    NaN comes before any number, so that who asks for the likeliest sees that the model does not compute one.
    """
    ids, values, seen = np.zeros(0, np.int64), None, 0
    for start, stop in parts(output.shape[0]):
        new = logits(Rows(output, start, stop))[0, seen - start :]
        if values is None:
            values = new[:0]
        for some in (new[:FIRST], new[FIRST:]):
            ids, values = kept(ids, values, seen, some, k)
            seen += len(some)
    assert values is not None
    return ids, values


def kept(ids: Ints, values: F, first: int, new: F, k: int) -> tuple[Ints, F]:
    """The ids and logits of the best k of those kept so far and of `new`, whose ids count from `first`."""
    edge = values[-1] if len(values) == k else -np.partition(-new, k - 1)[k - 1] if len(new) > k else np.nan
    some = np.flatnonzero(~(new <= edge) if len(values) == k else ~(new < edge))  # a NaN stays
    ids, values = np.concatenate([ids, first + some]), np.concatenate([values, new[some]])
    order = np.argsort(np.where(np.isnan(values), -np.inf, -values), kind="stable")[:k]
    return ids[order], values[order]
