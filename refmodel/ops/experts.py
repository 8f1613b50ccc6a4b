"""Which experts a token goes to, and how much each of them counts."""

import numpy as np

from ..arrays import F, Ints

LEAST = 2.0**-14  # of a sum of weights: the smallest normal half float


def largest(x: F, n: int) -> Ints:
    """The places [T, n] of the n largest numbers of each row of x [T, X], the largest first; the first of equals.

    Source: ggml_argsort_top_k, which leaves the order of equals open.
    """
    return np.argsort(-x, axis=-1, kind="stable")[:, :n].astype(np.int64)


def total(x: F) -> F:
    """The sums [T, 1] of the rows of x [T, n], one number after another in float64. Source: ggml_compute_forward_sum_rows."""
    return np.cumsum(x, axis=-1, dtype=np.float64)[:, -1:].astype(x.dtype)
