"""The kernel of every type whose rows are decoded first has the bits of its NumPy twin, and products go through it."""

import numpy as np
import pytest
from hypothesis import given
from near import same_bits
from strategies import seeds

from refmodel.kernels.types.grids import BLOCKS
from refmodel.numerics.reference import decoded, linear
from refmodel.ops.linear import eight_lanes
from refmodel.quants import DECODED, dequantize
from refmodel.quants.types import SIZES

EVERY = pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)


class Matrix:
    """A packed matrix of random blocks, whose scales are ordinary numbers."""

    def __init__(self, kind, rows):
        weights, size = SIZES[kind]
        self.name, self.type, self.rows = "w", kind, rows
        self.shape = (len(rows), rows.shape[1] // size * weights)


def test_every_such_type_has_a_kernel_of_its_sizes():
    assert {kind.name: SIZES[kind] for kind in DECODED} == {name: entry[:2] for name, entry in BLOCKS.items()}


@EVERY
@given(seed=seeds())
def test_bits_are_those_of_the_twin(kind, seed):
    rows = np.random.default_rng(seed).integers(0, 256, (3, 400 * SIZES[kind][1]), np.uint8)
    ours, theirs = decoded(kind, rows), dequantize(kind, rows)
    number = ~np.isnan(theirs)
    same_bits(np.isnan(ours), ~number)
    same_bits(ours[number], theirs[number])


@EVERY
def test_products_are_those_of_the_decoded_rows(kind):
    r = np.random.default_rng(3)
    rows = r.integers(0, 256, (33, 512 // SIZES[kind][0] * SIZES[kind][1]), np.uint8)
    w = Matrix(kind, rows[np.isfinite(dequantize(kind, rows)).all(1)])
    x = r.standard_normal((5, 512)).astype(np.float32)
    assert w.shape[0] > 8
    same_bits(linear(w, x), eight_lanes(w, x))
