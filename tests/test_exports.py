"""Ollama's own exports are read with llama.cpp's names: they compute what the same weights in llama.cpp's form compute."""

import struct
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T
from near import same_bits

import refmodel
from refmodel.compare.other_side import compare
from refmodel.errors import MetadataError
from refmodel.gguf.metadata import Field
from refmodel.gguf.reader import Tensor, read
from refmodel.gguf.writer import field, write
from refmodel.info.summary import summary
from refmodel.llamacpp.profile import DEFAULT
from refmodel.model import exports
from refmodel.numerics import LLAMACPP
from refmodel.surgery.gguf import routed
from refmodel.surgery.live import live
from refmodel.surgery.verify import verify

TOKENS = [7, 3, 250, 9, 9, 31, 120, 64]
OTHERS = ("v.blk.0.attn_q.weight", "v.patch_embed.weight", "mm.0.weight", "mtp.fc.weight", "mtp.layers.0.attn_q.weight")


def other_parts(path):
    ones = np.ones(12, np.float32).view(np.uint8)
    return {name: Tensor(name, Q.F32, (3, 4), path, ones) for name in OTHERS}


def as_ollama_exports_a_hybrid(path, out):
    """The keys of public loader logs: a list of head counts with zeros, three sections twice, parts of other models."""
    file = read(path)
    arch, fields = file.metadata["general.architecture"], dict(file.metadata.fields)
    n, interval = (file.metadata[f"{arch}.{key}"] for key in ("block_count", "full_attention_interval"))
    heads = file.metadata[f"{arch}.attention.head_count_kv"]
    counts = [heads if (i + 1) % interval == 0 else 0 for i in range(n)]
    fields[f"{arch}.attention.head_count_kv"] = field(T.ARRAY, counts, T.UINT32)
    if f"{arch}.rope.dimension_sections" in fields:
        sections = field(T.ARRAY, file.metadata[f"{arch}.rope.dimension_sections"][:3], T.INT32)
        fields |= {f"{arch}.{key}": sections for key in ("rope.dimension_sections", "mrope_sections", "rope.mrope_section")}
    fields[f"{arch}.vision.deepstack_visual_indexes"] = field(T.ARRAY, [], T.INT32)
    fields[f"{arch}.ssm.v_head_reordered"] = field(T.BOOL, arch != "qwen3next")
    tensors = {name.removesuffix(".bias") if ".ssm_dt." in name else name: t for name, t in file.tensors.items()}
    tensors = {name: replace(t, name=name) for name, t in tensors.items()} | other_parts(path)
    return write(out, fields, tensors.values())


@pytest.mark.parametrize("arch", sorted(tiny.DELTA))
def test_a_hybrid(arch, tmp_path):
    plain = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=5, n_layer=4, interval=2))
    export = refmodel.load(as_ollama_exports_a_hybrid(plain.path, tmp_path / "o.gguf"))
    assert export.kinds == plain.kinds == ["delta", "attention"] * 2
    same_bits(export.forward(TOKENS), plain.forward(TOKENS))
    said = summary(export)["export"]
    for fact in (
        "2 tensors v.* are left out: of the image part",
        "2 tensors mtp.*",
        "1 tensors mm.*",
        "ssm_dt.bias",
        "list with 0",
    ):
        assert fact in said
    assert ("three sections" in said) == (arch != "qwen3next")
    assert "export" not in summary(plain)


def test_its_copy_has_llama_cpps_names(tmp_path):
    path = tiny.build(tmp_path / "m.gguf", "qwen35", seed=5, n_layer=4, interval=2)
    export = refmodel.load(as_ollama_exports_a_hybrid(path, tmp_path / "o.gguf"))
    copy = routed(export, export.route("blocks:1,3"), tmp_path / "copy.gguf")
    assert not [name for name in read(copy).tensors if name.startswith(("v.", "mtp.", "mm.")) or name.endswith(".ssm_dt")]
    assert not refmodel.load(copy).file.notes
    same_bits(refmodel.load(copy).forward(TOKENS), export.forward(TOKENS, route="blocks:1,3"))
    assert verify(copy, tmp_path / "o.gguf").verdict == "proved"


@pytest.mark.parametrize(
    ("key", "value"), [("ssm.v_head_reordered", False), ("norm_top_k_prob", False), ("ssm.v_head_reordered", True)]
)
def test_a_key_that_asks_for_another_graph_is_refused_by_name(key, value, tmp_path):
    arch = "qwen3next" if value else "qwen35moe"
    file = read(tiny.build(tmp_path / "m.gguf", arch, seed=5))
    path = write(tmp_path / "o.gguf", file.metadata.fields | {f"{arch}.{key}": field(T.BOOL, value)}, file.tensors.values())
    with pytest.raises(MetadataError, match=rf"o\.gguf: {arch}\.{key} is {value}; llama\.cpp's graph of {arch} is for {not value}"):
        refmodel.load(path)


SORTS = {
    "list": field(T.ARRAY, [1, 2, 3], T.UINT32),
    "bools": field(T.ARRAY, [True, False], T.BOOL),
    "empty": field(T.ARRAY, [], T.UINT32),
    "text": field(T.STRING, "x"),
    "real": field(T.FLOAT32, 0.5),
    "flag": field(T.BOOL, True),
}
READ = {
    "qwen35": ["attention.head_count_kv", "rope.dimension_sections", "ssm.v_head_reordered"],
    "gemma3": ["context_length", "attention.layer_norm_rms_epsilon", "rope.freq_base", "tokenizer.ggml.tokens"],
    "mistral3": ["rope.scaling.type", "rope.scaling.beta_fast", "rope.scaling.mscale", "tokenizer.ggml.pre"],
    "lfm2": ["attention.head_count", "feed_forward_length"],
}


@pytest.mark.parametrize(("arch", "key"), [(arch, key) for arch, keys in READ.items() for key in keys])
def test_a_key_of_another_sort_is_refused_in_words(arch, key, tmp_path):
    """Every key that decides here whether a file is one of Ollama's."""
    file = read(tiny.build(tmp_path / "m.gguf", arch, seed=5))
    name = key if key.startswith("tokenizer.") else f"{arch}.{key}"
    parts = other_parts(tmp_path / "m.gguf").values()
    for value in SORTS.values():
        path = write(tmp_path / "o.gguf", file.metadata.fields | {name: value}, [*file.tensors.values(), *parts])
        with suppress(refmodel.errors.RefmodelError):
            refmodel.load(path)


def test_zeros_that_are_no_blocks_without_attention_stay_refused(tmp_path):
    file = read(tiny.build(tmp_path / "m.gguf", "qwen35", seed=5, n_layer=4, interval=2))
    for counts in ([0] * 4, [0, 2, 0, 1], [0, 2, 2, 2]):  # none, of two sizes, of a block that has the delta rule's tensors
        fields = file.metadata.fields | {"qwen35.attention.head_count_kv": field(T.ARRAY, counts, T.UINT32)}
        with pytest.raises(refmodel.errors.RefmodelError, match=r"head_count_kv|blk"):
            refmodel.load(write(tmp_path / "o.gguf", fields, file.tensors.values()))


def with_one_more_token(md):
    """The vocabulary with <image_soft_token>, which has no row of the embedding."""
    raw, text = md.fields["tokenizer.ggml.tokens"], b"<image_soft_token>"
    body = bytes(raw.raw[12:]) + struct.pack("<Q", len(text)) + text
    more = memoryview(struct.pack("<IQ", T.STRING, raw.count + 1) + body)
    types = [*md["tokenizer.ggml.token_type"], 3]
    return {
        "tokenizer.ggml.tokens": Field(T.ARRAY, T.STRING, raw.count + 1, more),
        "tokenizer.ggml.token_type": field(T.ARRAY, types, T.INT32),
    }


@pytest.mark.parametrize("context", [32768, 131072])
def test_gemma3(context, tmp_path):
    factor = {"scaling": {"type": "linear", "factor": 8.0}} if context == 131072 else {}
    file = read(tiny.build(tmp_path / "m.gguf", "gemma3", seed=5, context=context, **factor))
    wanted = {"attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4}
    plain = file.metadata.fields | {f"gemma3.{key}": field(T.FLOAT32, value) for key, value in wanted.items()}
    model = refmodel.load(write(tmp_path / "plain.gguf", plain, file.tensors.values()))

    without = (
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.type",
        "rope.scaling.factor",
        "attention.layer_norm_rms_epsilon",
    )
    fields = {key: value for key, value in plain.items() if key.removeprefix("gemma3.") not in without}
    fields |= {f"gemma3.{key}": field(T.FLOAT32, 1e6 if "global" in key else 1e4) for key in OLD_BASES}
    fields |= with_one_more_token(file.metadata) | {"gemma3.vision.block_count": field(T.UINT32, 27)}
    export = refmodel.load(write(tmp_path / "o.gguf", fields, [*file.tensors.values(), *other_parts(file.path).values()]))
    same_bits(export.forward(TOKENS), model.forward(TOKENS))
    assert export.tokenizer.encode("The cat") == model.tokenizer.encode("The cat")
    assert len(export.file.metadata["tokenizer.ggml.tokens"]) == export.n_vocab
    assert "gemma3.vision.block_count" not in export.file.metadata
    said = summary(export)["export"]
    assert "rope.local.freq_base is llama.cpp's rope.freq_base_swa" in said
    assert ("factor 8" in said) == (context == 131072)
    assert "1 tokens beyond" in said


def renamed(fields, arch, names):
    old = {f"{arch}.{name}": f"{arch}.{other}" for name, other in names.items()}
    return {old.get(key, key): value for key, value in fields.items()}


def test_mistral3(tmp_path):
    numbers = {"type": "yarn", "factor": 4.0, "original_context_length": 4, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0}
    scaling = numbers | {"yarn_log_multiplier": 0.5}
    path = tiny.build(tmp_path / "m.gguf", "mistral3", seed=5, temperature=0.25, scaling=scaling)
    file, plain = read(path), refmodel.load(path)
    names = {new: old for old, new in exports.MISTRAL_KEYS.items()}
    assert all(f"mistral3.{new}" in file.metadata for new in names)
    fields = renamed(file.metadata.fields, "mistral3", names) | {
        "tokenizer.ggml.pre": field(T.STRING, "default"),
        "mistral3.rope.scaling.mscale": field(T.FLOAT32, 1.0),
        "mistral3.image_token_index": field(T.UINT32, 10),
    }
    export = refmodel.load(write(tmp_path / "o.gguf", fields, [*file.tensors.values(), *other_parts(path).values()]))
    same_bits(export.forward(TOKENS), plain.forward(TOKENS))
    assert export.hp == plain.hp
    assert export.file.metadata["tokenizer.ggml.pre"] == "tekken"
    said = summary(export)["export"]
    for fact in ("rope.scaling_beta is llama.cpp's attention.temperature_scale", "yarn_log_multiplier", "tekken", "mm.*"):
        assert fact in said
    with pytest.raises(MetadataError, match=r"mistral3\.rope\.scaling\.mscale is 0\.5; llama\.cpp's graph of mistral3 is for 1\.0"):
        refmodel.load(
            write(tmp_path / "s.gguf", fields | {"mistral3.rope.scaling.mscale": field(T.FLOAT32, 0.5)}, file.tensors.values())
        )


def test_mistral3_without_a_scaling(tmp_path):
    file = read(tiny.build(tmp_path / "m.gguf", "mistral3", seed=5, temperature=0.0, scaling={}))
    none = {"type": field(T.STRING, "")} | {key: field(T.FLOAT32, 0.0) for key in ("factor", "beta_fast", "beta_slow")}
    fields = file.metadata.fields | {f"mistral3.rope.scaling.{key}": value for key, value in none.items()}
    export = refmodel.load(write(tmp_path / "o.gguf", fields, file.tensors.values()))
    same_bits(export.forward(TOKENS), refmodel.load(file.path).forward(TOKENS))
    assert "there is no scaling" in summary(export)["export"]


def test_lfm2(tmp_path):
    path = tiny.build(tmp_path / "m.gguf", "lfm2", seed=5)
    file, plain = read(path), refmodel.load(path)
    heads = [plain.hp.n_head if n else 0 for n in file.metadata["lfm2.attention.head_count_kv"]]
    assert 0 in heads
    fields = file.metadata.fields | {
        "lfm2.attention.head_count": field(T.ARRAY, heads, T.UINT32),
        "lfm2.feed_forward_length": field(T.UINT32, plain.hp.n_ff * 3 // 2),
    }
    tensors = {name.replace("token_embd_norm", "output_norm"): t for name, t in file.tensors.items()}
    export = refmodel.load(write(tmp_path / "o.gguf", fields, [replace(t, name=name) for name, t in tensors.items()]))
    same_bits(export.forward(TOKENS), plain.forward(TOKENS))
    said = summary(export)["export"]
    for fact in ("list with 0 for convolutions", f"has {plain.hp.n_ff} rows, which count", "output_norm.weight is llama.cpp's"):
        assert fact in said
    assert verify(routed(export, export.route("blocks:1,3"), tmp_path / "copy.gguf"), tmp_path / "o.gguf").verdict == "proved"


OLD_BASES = ("rope.global.freq_base", "rope.local.freq_base")


def test_an_embedding_model_is_named(tmp_path):
    file = read(tiny.build(tmp_path / "m.gguf", "gemma3", seed=5))
    dense = Tensor("dense.0.weight", Q.F32, (3, 4), file.path, np.ones(12, np.float32).view(np.uint8))
    with pytest.raises(MetadataError, match="an embedding model, which turns a text into one vector"):
        refmodel.load(write(tmp_path / "e.gguf", file.metadata.fields, [*file.tensors.values(), dense]))


@pytest.mark.live
@pytest.mark.parametrize("arch", sorted(tiny.DELTA))
def test_llama_cpp_runs_the_renamed_file(arch, tmp_path, llama_lib):
    path = tiny.build(tmp_path / "m.gguf", arch, seed=5, n_layer=4, interval=2)
    export = refmodel.load(as_ollama_exports_a_hybrid(path, tmp_path / "o.gguf"))
    other = live(export, export.route(), [TOKENS, [5]], DEFAULT, llama_lib, False, tmp_path)
    assert not [row.name for row in compare(export, export.route(), other, LLAMACPP, "", lambda name: None).rows if row.differ]
