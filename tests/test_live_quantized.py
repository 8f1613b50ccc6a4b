"""Copies that ggml itself quantizes afterwards, with an importance matrix and without: proved but for the forward pass.

    REFMODEL_LLAMA_LIB=FOLDER pytest -m live tests/test_live_quantized.py

FOLDER holds a libggml-base beside the libllama.
"""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as V

import refmodel
from refmodel.gguf.reader import read
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import field, write
from refmodel.quants.types import Newer, tensor_type
from refmodel.surgery.gguf import routed
from refmodel.surgery.verify import verify
from refmodel.surgery.verify.report import STRUCTURE

pytestmark = pytest.mark.live

WORDS = "blocks:1,3"
WIDE = {"E": 256, "F": 512, "H": 4, "G": 4, "D": 64, "n_rot": 64, "n_layer": 4, "alike": "every matrix can be packed"}
TYPES = [
    Q.Q8_0,
    Q.Q6_K,
    Q.Q5_K,
    Q.Q4_K,
    Q.Q3_K,
    Q.Q2_K,
    Q.Q5_0,
    Q.Q5_1,
    Q.Q4_0,
    Q.Q4_1,
    Q.IQ4_NL,
    Q.IQ4_XS,
    Q.IQ3_S,
    Q.IQ3_XXS,
    Q.IQ2_S,
    Q.TQ1_0,
    Q.TQ2_0,
    Q.MXFP4,
    *map(tensor_type, Newer),
]
WEIGHED = [*TYPES, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ1_S, Q.IQ1_M]  # which ggml makes with an importance matrix only


@pytest.fixture(scope="module")
def ggml(llama_lib):
    folder = llama_lib if llama_lib.is_dir() else llama_lib.parent
    lib = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    lib.ggml_quantize_chunk.restype = lib.ggml_row_size.restype = ctypes.c_size_t
    lib.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    pointers = [ctypes.c_void_p] * 2
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, *pointers, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return lib


def quantized(lib, t, kind, importance=None):
    rows, width = t.shape
    x = np.ascontiguousarray(t.data.view(np.float32))
    out = np.empty(rows * lib.ggml_row_size(int(kind), width), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    lib.ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, rows, width, weights)
    return Tensor(t.name, kind, t.shape, t.file, out)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("s") / "m.gguf", "llama", seed=4, **WIDE))


@pytest.fixture(scope="module")
def copy(source, tmp_path_factory):
    return read(routed(source, source.route(WORDS), tmp_path_factory.mktemp("c") / "c.gguf"))


def packed(lib, copy, kind, weighed, out, swap=False):
    """The copy with its matrices in a type; with `swap` one of them is another block's."""
    r, tensors = np.random.default_rng(8), dict(copy.tensors)
    if swap:
        tensors["blk.3.ffn_up.weight"] = replace(tensors["blk.0.ffn_up.weight"], name="blk.3.ffn_up.weight")
    for name, t in tensors.items():
        if len(t.shape) == 2:
            importance = np.exp(1.5 * r.standard_normal(t.shape[1])).astype(np.float32) if weighed else None
            tensors[name] = quantized(lib, t, kind, importance)
    fields = dict(copy.metadata.fields) | {"general.file_type": field(V.UINT32, 15)}
    return write(out, fields, tensors.values())


@pytest.mark.parametrize(("kind", "weighed"), [*((kind, False) for kind in TYPES), *((kind, True) for kind in WEIGHED)])
def test_what_ggml_quantizes_is_within_the_error_and_another_blocks_tensor_is_not(kind, weighed, ggml, source, copy, tmp_path):
    report = verify(packed(ggml, copy, kind, weighed, tmp_path / "q.gguf"), source.path, WORDS)
    assert (report.verdict, report.findings) == ("proved except forward", [])
    report = verify(packed(ggml, copy, kind, weighed, tmp_path / "o.gguf", swap=True), source.path, WORDS)
    assert [(check, finding.key) for check, finding in report.findings] == [(STRUCTURE, "blk.3.ffn_up.weight")]
