"""Which experts a token goes to, and that only those are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from strategies import seeds

from refmodel.ops.experts import by_expert, largest, total


@given(seed=seeds(), X=st.integers(1, 9), data=st.data())
def test_the_largest_stand_in_their_order(seed, X, data):
    n = data.draw(st.integers(1, X))
    x = np.random.default_rng(seed).integers(0, 5, (4, X)).astype(np.float32)
    for row, places in zip(x, largest(x, n), strict=True):
        assert list(places) == sorted(range(X), key=lambda i: (-row[i], i))[:n]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds())
def test_a_total_is_a_sum(dtype, seed):
    x = np.random.default_rng(seed).uniform(0, 1, (3, 7)).astype(dtype)
    assert total(x).shape == (3, 1)
    near(total(x)[:, 0], x.astype(np.float64).sum(axis=1), ulps=1)


def test_a_total_is_summed_in_doubles():
    """One after another in float32, each of the small ones would be lost."""
    x = np.array([[1.0, 2.0**-24, 2.0**-24], [2.0**-24, 2.0**-24, 1.0]], np.float32)
    same_bits(total(x), np.full((2, 1), 1 + 2.0**-23, np.float32))


class Asked:
    """Matrices [X, O, I] that remember which of them were asked for."""

    def __init__(self, matrices):
        self.matrices, self.shape, self.asked = matrices, matrices.shape, []

    def matrix(self, number):
        self.asked.append(number)
        return self.matrices[number]


@given(seed=seeds(), per_slot=st.booleans())
def test_a_token_is_multiplied_with_its_own_experts_and_no_other_is_read(seed, per_slot):
    r = np.random.default_rng(seed)
    T, X, U, O, I = 4, 6, 2, 3, 5
    w, x = Asked(r.standard_normal((X, O, I))), r.standard_normal((T, U if per_slot else 1, I))
    ids = np.stack([r.permutation(X - 2)[:U] for _ in range(T)])  # the last two are never chosen
    out = by_expert(lambda matrix, rows: np.einsum("ti,oi->to", rows, matrix), w, x, ids)
    assert sorted(w.asked) == sorted(set(ids.ravel()))
    for t in range(T):
        for u in range(U):
            same_bits(out[t, u], np.einsum("ti,oi->to", x[t, u % x.shape[1]][None], w.matrices[ids[t, u]])[0])
