"""A file that is no model by itself is named for what it is; a type that cannot be run is named by info, and run refuses it."""

import gguf
import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Q

import refmodel
from refmodel.errors import FileError, MetadataError, TensorError
from refmodel.gguf.reader import read
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import write
from refmodel.info.checks import inconsistencies
from refmodel.quants import DECODED, dequantize
from refmodel.quants.types import SIZES
from refmodel.surgery.verify import Options, recovered, verify


def written(path, keys, tensors, arch="llama"):
    out = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        out.add_string(key, value)
    for name in tensors:
        out.add_tensor(name, np.ones((2, 4), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize(
    ("arch", "keys", "tensors", "message"),
    [
        ("clip", {"general.type": "mmproj"}, ["v.patch_embd.weight"], "general.type is 'mmproj'.*image or audio part"),
        ("clip", {}, ["v.patch_embd.weight", "mm.0.weight"], "general.architecture is 'clip'.*image or audio part"),
        ("llama", {"general.type": "adapter"}, ["blk.0.attn_q.weight.lora_a"], "general.type is 'adapter'.*LoRA adapter"),
        ("llama", {}, ["blk.0.attn_q.weight.lora_a"], r"blk\.0\.attn_q\.weight\.lora_a; expected.*LoRA adapter"),
        ("controlvector", {}, ["direction.1"], "'controlvector'.*control vector"),
        ("imatrix", {"general.type": "imatrix"}, ["blk.0.attn_q.weight.in_sum2"], "'imatrix'.*importance matrix"),
        ("llama", {"tokenizer.ggml.model": "llama"}, [], "no tensors; .*vocabulary without weights"),
        ("llama", {"general.type": "vocab"}, [], "general.type is 'vocab'; .*vocabulary without weights"),
        ("qwen35", {}, ["blk.32.nextn.eh_proj.weight", "blk.32.attn_q.weight"], "prediction block .MTP.*--mtp"),
        ("eagle3", {}, ["fc.weight"], "draft model .EAGLE-3."),
        ("gemma4-assistant", {}, ["blk.0.attn_q.weight"], "draft model .Gemma 4's assistant."),
        ("glm4moe", {}, ["blk.46.nextn.eh_proj.weight", "output.weight"], "prediction block .MTP.*--mtp"),
        ("nomic-bert-moe", {}, ["blk.0.attn_qkv.weight"], "an embedding model"),
        ("flux", {}, ["double_blocks.0.img_attn.qkv.weight"], "makes pictures"),
        ("llama", {"general.type": "hologram"}, ["x.weight"], "'hologram'.*not known here; known are model, adapter"),
    ],
)
def test_a_file_is_named_for_what_it_is(tmp_path, arch, keys, tensors, message):
    path = written(tmp_path / "other.gguf", keys, tensors, arch)
    with pytest.raises(MetadataError, match=f"other.gguf: .*{message}") as caught:
        refmodel.load(path)
    assert "\n" not in str(caught.value)


def test_a_copy_that_is_no_model_is_named_by_verify_and_by_route(good, tmp_path):
    path = written(tmp_path / "other.gguf", {"general.type": "adapter"}, ["blk.0.attn_q.weight.lora_a"])
    report = verify(path, good.path, options=Options(forward=False))
    assert [(f.key, "LoRA adapter" in f.what) for _, f in report.findings] == [("the file", True)]
    with pytest.raises(MetadataError, match="LoRA adapter"):
        recovered(path, good.path)


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
STRANGERS = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
    "a web page": b"<!DOCTYPE html><html>Access denied</html>",
    "JSON; if it reports an error": b'{"error":"Repository not found"}',
    "a text; if it reports an error": b"Invalid username or password.",
    "a manifest of Ollama": b'{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}',
    "a Modelfile of Ollama": b"# mine\nFROM ./m.gguf\nPARAMETER temperature 1\n",
    "a GGML file": b"tjgg" + bytes([3, 0, 0, 0]) * 20,
    "a LoRA adapter of a llama.cpp": b"algg" + bytes([1, 0, 0, 0]) * 20,
    "a ZIP archive": b"PK\x03\x04" + bytes(90),
    "a pickle": b"\x80\x02}q\x00." + bytes(90),
    "a compressed file": b"\x1f\x8b\x08\x00" + bytes(90),
    "a safetensors file": len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
    "an importance matrix": bytes([2, 0, 0, 0, 19, 0, 0, 0]) + b"blk.0.attn_q.weight" + bytes(40),
    "zeros": bytes(4096),
    "nor another file that is known": bytes(range(1, 200)),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_file_that_is_no_gguf_is_named_for_what_it_is(what, tmp_path):
    (tmp_path / "m.gguf").write_bytes(STRANGERS[what])
    with pytest.raises(FileError, match=f"m.gguf: starts with .*this is not a GGUF, .*{what}") as caught:
        refmodel.load(tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)


FOLDERS = {
    "give one of them: a-Q4.gguf, b-00001-of-00002.gguf": ["a-Q4.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"],
    "it is a LoRA adapter": ["adapter_config.json", "adapter_model.safetensors"],
    "an entry of a Hugging Face cache; give .*/snapshots/abc$": ["snapshots/abc/config.json", "refs/main"],
    "it is Ollama's store": ["blobs/sha256-abc", "manifests/registry.ollama.ai"],
    "torch.save .pytorch_model.bin.": ["pytorch_model.bin"],
    "cannot be opened": ["notes.txt"],
}


@pytest.mark.parametrize("said", FOLDERS)
def test_a_folder_without_a_model_is_named_for_what_it_holds(said, tmp_path):
    for name in FOLDERS[said]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(FileError, match=said):
        refmodel.load(tmp_path)


def test_a_folder_with_a_configuration_and_other_weights_names_them(tmp_path):
    for name, text in (("config.json", '{"model_type": "llama", "num_hidden_layers": 2}'), ("m-Q8_0.gguf", "x")):
        (tmp_path / name).write_text(text)
    with pytest.raises(FileError, match=r"has no .safetensors files; it holds GGUF files; give one of them: m-Q8_0.gguf"):
        refmodel.load(tmp_path)


def test_a_later_part_of_a_split_file_names_the_first(tmp_path):
    out = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
    out.add_uint16("split.no", 1)
    out.add_uint16("split.count", 3)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    with pytest.raises(FileError, match=r"not the first part; open m-00001-of-00003\.gguf"):
        refmodel.load(tmp_path / "m-00002-of-00003.gguf")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return read(tiny.build(tmp_path_factory.mktemp("good") / "m.gguf", "llama", seed=1, E=256, F=512))


def with_type(good, path, name, kind):
    """The same file with one matrix in another type: random blocks that decode to ordinary numbers."""
    old, (weights, size) = good.tensors[name], SIZES[kind]
    r, (rows, width) = np.random.default_rng(5), old.shape
    packed = r.integers(0, 256, (rows, width // weights * size), np.uint8)
    for i in range(rows if kind in DECODED else 0):
        while not (abs(dequantize(kind, packed[i : i + 1])) < 1e4).all():
            packed[i] = r.integers(0, 256, packed.shape[1], np.uint8)
    tensors = good.tensors | {name: Tensor(name, kind, old.shape, path, packed.ravel())}
    return write(path, good.metadata.fields, tensors.values())


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_every_type_runs_and_info_finds_nothing_wrong(good, tmp_path, kind):
    model = refmodel.load(with_type(good, tmp_path / "m.gguf", "blk.1.ffn_up.weight", kind))
    assert inconsistencies(model) == []
    ours, exact = (model.forward([1, 2, 3], numerics=numerics) for numerics in ("reference", "oracle"))
    assert np.isfinite(exact).all()
    assert np.square(ours - exact).sum() <= 1e-9 * np.square(exact).sum()


@pytest.mark.parametrize("kind", [Q.I8, Q.F64, Q.Q8_K])
def test_a_type_that_cannot_be_run_is_named_by_info_and_refused_by_run(good, tmp_path, kind):
    path = with_type(good, tmp_path / "m.gguf", "blk.1.ffn_up.weight", kind)
    model, line = refmodel.load(path), f"blk.1.ffn_up.weight is {kind.name}, which holds no weights"
    assert [found[: len(line)] for found in inconsistencies(model)] == [line]
    with pytest.raises(TensorError, match=f"m.gguf: {line}"):
        model.forward([1, 2, 3])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (4, "Q4_2, which llama.cpp removed"),
        (31, "Q4_0 with its rows"),
        (38, "IQ4_NL with its rows"),
        (97, "beyond llama.cpp .* ik_llama"),
    ],
)
def test_a_removed_or_foreign_type_is_named(good, tmp_path, number, said):
    path = write(tmp_path / "m.gguf", good.metadata.fields, good.tensors.values())
    data, name = bytearray(path.read_bytes()), b"blk.1.ffn_up.weight"
    at = data.index(name) + len(name) + 4 + 16
    data[at : at + 4] = number.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileError, match=f"m.gguf: blk.1.ffn_up.weight has tensor type {number}: {said}"):
        read(path)
