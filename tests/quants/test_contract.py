"""What every tensor type promises; a type is tested by standing in LAYOUTS."""

import gguf.quants
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from near import same_bits
from strategies import seeds

from refmodel.errors import TensorError
from refmodel.quants import LAYOUTS, dequantize

HALVES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xFBFF, 0x7C00, 0xFC00, 0x7E01, 0xFE00], "<u2")
EVERY = pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.name)


def random_rows(kind, seed, rows=3, blocks=5):
    """Random bytes; in every other block the half floats are zeros, subnormals, the largest, infinities or NaNs."""
    r, quant = np.random.default_rng(seed), LAYOUTS[kind]
    packed = r.integers(0, 256, (rows, blocks * quant.BLOCK.itemsize), np.uint8)
    view = packed.view(quant.BLOCK)
    for name in quant.BLOCK.names:
        if quant.BLOCK[name] == "<f2":
            view[name][:, ::2] = r.choice(HALVES, view[name][:, ::2].shape).view("<f2")
    return packed


@EVERY
def test_the_block_has_the_size_that_the_format_says(kind):
    assert (LAYOUTS[kind].WEIGHTS, LAYOUTS[kind].BLOCK.itemsize) == GGML_QUANT_SIZES[kind]


@EVERY
@given(seed=seeds())
def test_bits_equal_those_of_gguf_py(kind, seed):
    rows = random_rows(kind, seed)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(rows, kind).astype(np.float32)
    ours = dequantize(kind, rows)
    assert ours.shape == (3, 5 * LAYOUTS[kind].WEIGHTS)
    number = ~np.isnan(theirs)
    same_bits(np.isnan(ours), ~number)
    same_bits(ours[number], theirs[number])


@EVERY
def test_every_byte_value_at_every_place(kind):
    """Block b holds the byte b everywhere: with 256 blocks, each place sees each value."""
    rows = np.repeat(np.arange(256, dtype=np.uint8), LAYOUTS[kind].BLOCK.itemsize).reshape(1, -1)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(rows, kind).astype(np.float32)
    ours = dequantize(kind, rows)
    number = ~np.isnan(theirs)
    same_bits(ours[number], theirs[number])
    assert np.isnan(ours[~number]).all()


@EVERY
def test_no_rows_are_no_rows(kind):
    assert dequantize(kind, np.zeros((0, LAYOUTS[kind].BLOCK.itemsize), np.uint8)).shape[0] == 0


BEYOND = [GGMLQuantizationType[name] for name in ("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "IQ1_S", "TQ1_0", "TQ2_0")]


@pytest.mark.parametrize("kind", BEYOND, ids=lambda kind: kind.name)
def test_other_types_go_through_the_library(kind):
    """Any bytes: among 256 blocks some have infinite or NaN scales, and those warn nobody."""
    rows = np.random.default_rng(0).integers(0, 256, (256, GGML_QUANT_SIZES[kind][1]), np.uint8)
    ours = dequantize(kind, rows)
    with np.errstate(all="ignore"):
        same_bits(ours, gguf.quants.dequantize(rows, kind))


def test_a_type_that_nobody_decodes_is_named():
    with pytest.raises(TensorError, match="Q8_K"):
        dequantize(GGMLQuantizationType.Q8_K, np.zeros((1, 292), np.uint8))
