"""Which experts a token goes to, and how much each of them counts."""

from collections.abc import Callable

import numpy as np

from ..arrays import F, Ints, Matrices, Matrix

LEAST = 2.0**-14  # of a sum of weights: the smallest normal half float


def largest(x: F, n: int) -> Ints:
    """The places [T, n] of the n largest numbers of each row of x [T, X], the largest first; the first of equals.

    Source: ggml_argsort_top_k, which leaves the order of equals open.
    """
    return np.argsort(-x, axis=-1, kind="stable")[:, :n].astype(np.int64)


def total(x: F) -> F:
    """The sums [T, 1] of the rows of x [T, n], one number after another in float64. Source: ggml_compute_forward_sum_rows."""
    return np.cumsum(x, axis=-1, dtype=np.float64)[:, -1:].astype(x.dtype)


def by_expert(product: Callable[[Matrix, F], F], w: Matrices, x: F, ids: Ints) -> F:
    """The products of each token with the experts that it is routed to; only their matrices are read.

    product  of one matrix [O, I] with tokens [T, I]: [T, O]
    w        [X, O, I]
    x        [T, 1, I], the same for all experts of a token, or [T, U, I], one row for each
    ids      [T, U]   which experts

    Returns [T, U, O]. Source: ggml_mul_mat_id.
    """
    out = np.empty((*ids.shape, w.shape[1]), x.dtype)
    for expert in np.unique(ids):
        t, u = np.nonzero(ids == expert)
        out[t, u] = product(w.matrix(int(expert)), x[t, u % x.shape[1]])
    return out
