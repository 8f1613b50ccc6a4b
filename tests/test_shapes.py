"""Leading dimensions of 1 do not count, as in llama.cpp's check_tensor_dims: for every tensor of every architecture."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
import tiny
from near import same_bits
from shares import only

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.arch.shapes import same
from refmodel.compare.other_side import compare, numerics_against
from refmodel.errors import TensorError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import write
from refmodel.llamacpp.profile import profile_of
from refmodel.numerics import LLAMACPP
from refmodel.surgery.live import live

TOKENS = [7, 3, 250, 9]
each = pytest.mark.parametrize("arch", ARCHITECTURES)
some = pytest.mark.parametrize("arch", only(ARCHITECTURES, "llama", "gemma3", "lfm2", "qwen35moe"))


def built(folder, arch):
    """A file with everything that the architecture may have."""
    more = {"n_nextn": 1, "own_head": True} if arch in tiny.DELTA else {"rope_freqs": arch in ("llama", "mistral3")}
    head = ["output"] if arch == "qwen2" else []
    return read(tiny.build(folder / "m.gguf", arch, seed=1, biases=[*tiny.QKV, *head], **more))


def rewritten(folder, file, shapes):
    """The same file with other shapes for some tensors."""
    tensors = [replace(tensor, shape=shapes.get(name, tensor.shape)) for name, tensor in file.tensors.items()]
    return write(folder / "other.gguf", file.metadata.fields, tensors)


def run(path, numerics="numpy"):
    model = refmodel.load(path)
    session = model.session(numerics=numerics, mtp=model.hp.n_nextn == 1)
    logits = session.forward(TOKENS)
    return np.concatenate([logits, session.draft.logits()]) if session.draft else logits


@some
def test_a_leading_dimension_of_1_is_no_dimension(arch, tmp_path):
    file = built(tmp_path, arch)
    before = run(file.path)
    ones = {name: (1, *tensor.shape) for name, tensor in file.tensors.items()}
    for name in ones:
        refmodel.load(rewritten(tmp_path, file, {name: ones[name]}))
    same_bits(run(rewritten(tmp_path, file, ones)), before)
    vectors = {name: (1, 1, *tensor.shape) for name, tensor in file.tensors.items() if len(tensor.shape) < 3}
    same_bits(run(rewritten(tmp_path, file, ones | vectors)), before)


@some
def test_any_other_dimension_of_1_is_one(arch, tmp_path):
    file = built(tmp_path, arch)
    prediction = f"blk.{tiny.SHAPES[arch].n_layer}."  # is checked when it is used
    for name, tensor in file.tensors.items():
        if name != "token_embd.weight" and not name.startswith(prediction):  # whose rows are the vocabulary
            with pytest.raises(TensorError, match=rf"{name} has shape .*, 1\)"):
                refmodel.load(rewritten(tmp_path, file, {name: (*tensor.shape, 1)}))


@pytest.mark.parametrize("arch", ["qwen35moe", "qwen3next"])
def test_the_row_of_the_shared_experts_share_may_be_a_matrix(arch, tmp_path):
    """As the converter writes it in files of floats; vectors are what its quantized files have."""
    file = built(tmp_path, arch)
    rows = {name: (1, *tensor.shape) for name, tensor in file.tensors.items() if "ffn_gate_inp_shexp" in name}
    assert rows
    same_bits(run(rewritten(tmp_path, file, rows), "reference"), run(file.path, "reference"))


def test_shapes_of_one_expert_are_those_of_a_matrix():
    assert same((1, 3, 4), (3, 4))
    assert same((4,), (1, 4))
    assert same((1, 1), (1,))
    assert not same((4, 1), (4,))
    assert not same((2, 4), (4,))
    assert not same((1, 3), (3, 1))


@pytest.mark.live
@pytest.mark.parametrize("kind", [None, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16])
@each
def test_llama_cpp_takes_the_same_shapes(arch, kind, tmp_path, llama_lib):
    file = built(tmp_path, arch)
    path = rewritten(tmp_path, file, {name: (1, *tensor.shape) for name, tensor in file.tensors.items()})
    if kind is not None:
        file = read(path)
        tensors = [packed(t, kind) if "ffn_gate_inp_shexp" in t.name else t for t in file.tensors.values()]
        path = write(tmp_path / "packed.gguf", file.metadata.fields, tensors)
    model = refmodel.load(path)
    other = live(model, model.route(), [TOKENS, [5]], profile_of("default"), llama_lib, False, tmp_path)
    result = compare(model, model.route(), other, numerics_against(LLAMACPP, other), "", lambda name: None)
    assert not [row.name for row in result.rows if row.differ or row.problem]


def packed(tensor, kind):
    data = gguf.quants.quantize(tensor.data.view(np.float32).reshape(1, -1), kind)
    return replace(tensor, type=kind, data=data.view(np.uint8).ravel())
