"""What every tensor type promises; a type is tested by standing in LAYOUTS."""

import ctypes
import re
from pathlib import Path

import gguf.quants
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from near import same_bits
from strategies import seeds

from refmodel.errors import TensorError
from refmodel.quants import LAYOUTS, dequantize
from refmodel.quants.types import GONE, LAST, SIZES, Newer, missing, tensor_type

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


BITS = {  # bits of a code, and what it stands for
    "Q1_0": (1, lambda code, d: np.where(code, d, -d)),
    "Q2_0": (2, lambda code, d: (code - 1) * d),
}


def defined(kind, rows):
    """The weights by the gguf package; by the words of ggml's definition where it cannot."""
    with np.errstate(all="ignore"):
        if kind.name in BITS:
            width, value = BITS[kind.name]
            found = [value(bits_of(b["qs"], width), b["d"].astype(np.float32)) for b in rows.view(LAYOUTS[kind].BLOCK).ravel()]
            return np.concatenate(found).reshape(len(rows), -1)
        return gguf.quants.dequantize(rows, kind).astype(np.float32)


def bits_of(packed, width):
    """Numbers of `width` bits, the first in the lowest bits of the first byte."""
    mask = (1 << width) - 1
    return np.array([int(byte) >> shift & mask for byte in packed for shift in range(0, 8, width)], np.float32)


@EVERY
def test_the_block_has_the_size_that_the_format_says(kind):
    assert (LAYOUTS[kind].WEIGHTS, LAYOUTS[kind].BLOCK.itemsize) == SIZES[kind]


@EVERY
@given(seed=seeds())
def test_bits_equal_those_of_gguf_py(kind, seed):
    rows = random_rows(kind, seed)
    theirs = defined(kind, rows)
    ours = dequantize(kind, rows)
    assert ours.shape == (3, 5 * LAYOUTS[kind].WEIGHTS)
    number = ~np.isnan(theirs)
    same_bits(np.isnan(ours), ~number)
    same_bits(ours[number], theirs[number])


@EVERY
def test_every_byte_value_at_every_place(kind):
    """Block b holds the byte b everywhere: with 256 blocks, each place sees each value."""
    rows = np.repeat(np.arange(256, dtype=np.uint8), LAYOUTS[kind].BLOCK.itemsize).reshape(1, -1)
    theirs = defined(kind, rows)
    ours = dequantize(kind, rows)
    number = ~np.isnan(theirs)
    same_bits(ours[number], theirs[number])
    assert np.isnan(ours[~number]).all()


@EVERY
def test_no_rows_are_no_rows(kind):
    assert dequantize(kind, np.zeros((0, LAYOUTS[kind].BLOCK.itemsize), np.uint8)).shape[0] == 0


@pytest.mark.parametrize("name", ["Q8_1", "Q8_K", "I8", "I32", "F64"])
def test_a_type_that_holds_no_weights_is_named(name):
    kind = GGMLQuantizationType[name]
    with pytest.raises(TensorError, match=f"{name}, which holds no weights .* IQ2_XXS"):
        dequantize(kind, np.zeros((1, SIZES[kind][1]), np.uint8))


@pytest.mark.parametrize("number", range(100))
def test_every_number_has_a_type_or_a_reason(number):
    kind = tensor_type(number)
    if kind is None:
        assert re.search("convert the model again|is damaged", missing(number))
    else:
        assert (int(kind), number in SIZES) == (number, True)


def test_what_the_gguf_package_lacks_has_the_numbers_of_llama_cpps_table():
    """The live test below holds the whole table; these hold without a llama.cpp."""
    assert GONE.keys() == {4, 5, 31, 32, 33, 36, 37, 38}
    assert {name: SIZES[kind] for name, kind in (("Q8_1", 9), *((one.name, one) for one in Newer))} == {
        "Q8_1": (32, 36),
        "NVFP4": (64, 36),
        "Q1_0": (128, 18),
        "Q2_0": (64, 18),
    }


class Traits(ctypes.Structure):
    """ggml_type_traits of build 0c1e57098."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("weights", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    ]


@pytest.fixture
def traits(llama_lib):
    lib = ctypes.CDLL(str(Path(llama_lib).with_name("libggml-base.so")))
    lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    return lambda number: lib.ggml_get_type_traits(number).contents


@pytest.mark.live
@pytest.mark.parametrize("number", range(LAST + 1))
def test_live_llama_cpps_own_table(traits, number):
    """Every type of ggml's table has the size of ours; each that ggml decodes to floats we decode to the same bits."""
    theirs, kind = traits(number), tensor_type(number)
    if kind is None:
        assert number in GONE
        assert theirs.weights == 0
        return
    assert SIZES[number] == (theirs.weights, theirs.bytes)
    assert (kind in LAYOUTS) == (bool(theirs.to_float) or kind.name == "F32")
    if not theirs.to_float:
        return
    anything = np.random.default_rng(number).integers(0, 256, (4, 400 * theirs.bytes), np.uint8)
    rows = np.concatenate([random_rows(kind, 1, 4, 600), anything], axis=1)
    out = np.empty((4, 1000 * theirs.weights), np.float32)
    theirs.to_float(rows.ctypes.data, out.ctypes.data, out.size)
    ours, numbers = dequantize(kind, rows), ~np.isnan(out)
    same_bits(np.isnan(ours), ~numbers)
    same_bits(ours[numbers], out[numbers])
