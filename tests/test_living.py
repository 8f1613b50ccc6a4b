"""Copies that went on living: quantized, saved again, scaled, zeroed, merged; and the verdicts, which no re-saving changes."""

import json
import shutil
from dataclasses import replace

import folders
import gguf.quants
import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as V

import refmodel
from refmodel.gguf.reader import read
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import Limit, field, write
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.quants.types import Newer, tensor_type
from refmodel.surgery.gguf import routed
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, recovered, verify
from refmodel.surgery.verify.report import BYTES, METADATA, STRUCTURE

WORDS = "blocks:1,3"
WIDE = {
    "E": 256,
    "F": 256,
    "H": 4,
    "G": 4,
    "D": 64,
    "n_rot": 64,
    "n_layer": 4,
    "alike": "every matrix can be packed, and has as many values",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("s") / "m.gguf", "llama", seed=4, **WIDE))


@pytest.fixture(scope="module")
def copy(source, tmp_path_factory):
    return routed(source, source.route(WORDS), tmp_path_factory.mktemp("c") / "c.gguf")


def floats(t):
    return t.data.view(np.float32).reshape(t.shape)


def in_type(t, kind, values=None):
    """A float32 tensor in another type, its values changed."""
    x = floats(t) if values is None else values.astype(np.float32)
    data = x if kind == Q.F32 else gguf.quants.quantize(x, kind)
    return Tensor(t.name, kind, t.shape, t.file, np.ascontiguousarray(data).view(np.uint8).ravel())


def changed(path, out, tensors=None, drop=(), **fields):
    """A file with some of its tensors and keys replaced; keys without their namespace belong to the architecture."""
    file = read(path)
    kept = {key: value for key, value in file.metadata.fields.items() if key not in drop}
    return write(out, kept | fields, (dict(file.tensors) | (tensors or {})).values())


def matrices(path):
    return {name: t for name, t in read(path).tensors.items() if len(t.shape) == 2}


def anonymous(path, out):
    """The same file without any word of where it comes from."""
    keys = read(path).metadata.fields
    return changed(path, out, drop={key for key in keys if key.startswith("refmodel.")} | {"general.name"})


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.F16, Q.BF16])
def test_a_copy_that_was_quantized_afterwards_is_proved_but_for_the_forward_pass(kind, source, copy, tmp_path):
    packed = {name: in_type(t, kind) for name, t in matrices(copy).items()}
    out = changed(copy, tmp_path / "q.gguf", packed, **{"general.file_type": field(V.UINT32, 7)})
    report = verify(out, source.path, WORDS)
    assert (report.verdict, report.status, report.findings) == ("proved except forward", 0, [])
    assert any(f"quantized afterwards: {len(packed)} in {kind.name}" in note for note in report.notes)
    assert verify(anonymous(out, tmp_path / "a.gguf"), source.path).verdict == "recovered"


def one_bit(x):
    """Q1_0 of rows of a multiple of 128 weights, as ggml packs it: the sign of each, and the mean magnitude of a block."""
    blocks = x.reshape(-1, 128)
    d = np.abs(blocks).mean(axis=1, keepdims=True).astype(np.float16).view(np.uint8)
    return np.concatenate([d, np.packbits(blocks >= 0, axis=1, bitorder="little")], axis=1)


def two_bits(x):
    """Q2_0 of rows of a multiple of 64 weights, as ggml packs it: -1, 0 or 1 times the largest magnitude of a block."""
    blocks = x.reshape(-1, 64)
    d = np.abs(blocks).max(axis=1, keepdims=True)
    codes = (np.rint(blocks / d).astype(np.uint8) + 1).reshape(-1, 16, 4)
    return np.concatenate(
        [d.astype(np.float16).view(np.uint8), (codes << np.array([0, 2, 4, 6], np.uint8)).sum(2, np.uint8)], axis=1
    )


@pytest.mark.parametrize(("kind", "pack"), [(Newer.Q1_0, one_bit), (Newer.Q2_0, two_bits)])
def test_types_of_one_and_two_bits_have_an_error_too(kind, pack, source, copy, tmp_path):
    packed = {n: Tensor(n, tensor_type(kind), t.shape, t.file, pack(floats(t)).ravel()) for n, t in matrices(copy).items()}
    report = verify(changed(copy, tmp_path / "q.gguf", packed), source.path, WORDS)
    assert (report.verdict, report.findings) == ("proved except forward", [])
    name = "blk.3.ffn_up.weight"
    packed[name] = replace(packed["blk.0.ffn_up.weight"], name=name)
    report = verify(changed(copy, tmp_path / "o.gguf", packed), source.path, WORDS)
    assert [(check, finding.key) for check, finding in report.findings] == [(STRUCTURE, name)]


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0])
@pytest.mark.parametrize("harm", ["another block's", "a row of zeros", "a row twice as large", "rows swapped"])
def test_a_tensor_beyond_its_types_error_is_named(kind, harm, source, copy, tmp_path):
    tensors = matrices(copy)
    packed = {name: in_type(t, kind) for name, t in tensors.items()}
    name = "blk.3.ffn_up.weight"
    x = floats(tensors[name]).copy()
    if harm == "another block's":
        x = floats(tensors["blk.0.ffn_up.weight"])
    elif harm == "rows swapped":
        x[[3, 4]] = x[[4, 3]]
    else:
        x[7] *= 0 if harm == "a row of zeros" else 2
    packed[name] = in_type(tensors[name], kind, x)
    report = verify(changed(copy, tmp_path / "q.gguf", packed), source.path, WORDS)
    assert report.verdict == "wrong"
    assert [(check, finding.key) for check, finding in report.findings] == [(STRUCTURE, name)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, r: 0.76 * x, "blk.1.attn_q.weight times 0.76"),
        (lambda x, r: -2.5 * x, "blk.1.attn_q.weight times -2.5"),
        (lambda x, r: 0 * x, "all zeros"),
        (lambda x, r: x + 0.02 * r.standard_normal((256, 4)) @ r.standard_normal((4, 256)), "the difference has rank 4"),
        (lambda x, r: x + 1e-3 * r.standard_normal(x.shape), "65536 of its 65536 values differ from blk.1.attn_q.weight, by 0.016"),
    ],
)
def test_what_became_of_a_tensor_is_told(change, said, source, copy, tmp_path):
    t = read(copy).tensors["blk.3.attn_q.weight"]
    odd = in_type(t, Q.F32, change(floats(t), np.random.default_rng(1)))
    report = verify(changed(copy, tmp_path / "o.gguf", {t.name: odd}), source.path, options=Options(forward=False))
    assert report.verdict == "wrong"
    assert [(check, f.key) for check, f in report.findings] == [(BYTES, t.name)]
    assert said in report.findings[0][1].what


def sized(t, x):
    """A tensor of that name and other values, of another shape."""
    return Tensor(t.name, Q.F32, x.shape, t.file, np.ascontiguousarray(x, np.float32).view(np.uint8).ravel())


PARTS = [
    ("blk.3.ffn_up.weight", lambda x, r: x[np.sort(r.permutation(len(x))[:200])], "200 of the {n} rows of blk.1.ffn_up.weight"),
    ("blk.3.ffn_up.weight", lambda x, r: x[:200], "200 of the {n} rows of blk.1.ffn_up.weight, the first 200"),
    ("blk.3.ffn_down.weight", lambda x, r: x[:, 7:], "of the {m} columns of blk.1.ffn_down.weight"),
    ("blk.3.attn_norm.weight", lambda x, r: x[:50], "50 of the {n} values of blk.1.attn_norm.weight"),
    ("token_embd.weight", lambda x, r: np.concatenate([x, x[:3] + 1]), "the {n} rows of token_embd.weight and 3 more"),
    ("blk.3.ffn_up.weight", lambda x, r: np.concatenate([x[:9], x[:3] + 1]), "9 of its 12 rows are some of the {n} of blk.1"),
    ("blk.3.ffn_up.weight", lambda x, r: x[:9] + 1, ""),
    ("blk.3.ffn_up.weight", lambda x, r: x[:9, :9], ""),
]


@pytest.mark.parametrize(("name", "change", "said"), PARTS)
def test_a_part_of_a_tensor_is_told(name, change, said, source, copy, tmp_path):
    """As pruning of widths and added tokens leave it; one finding for each such tensor."""
    t = read(copy).tensors[name]
    odd = sized(t, change(floats(t), np.random.default_rng(1)))
    report = verify(changed(copy, tmp_path / "o.gguf", {name: odd}), source.path, options=Options(forward=False))
    found = [f.what for _, f in report.findings if f.key == name]
    assert len(found) == 1
    assert found[0].startswith(f"has shape {odd.shape};")
    assert said.format(n=t.shape[0], m=t.shape[-1]) in found[0]
    assert bool(said) == (" of the " in found[0] or " and " in found[0] or " some of " in found[0])


def test_pruned_experts_are_told(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen3moe", seed=3))
    path = routed(model, model.route("blocks:1,3"), tmp_path / "c.gguf")
    odd = {n: sized(t, floats(t)[[0, 2, 3, 5, 6]]) for n, t in read(path).tensors.items() if "_exps." in n or "ffn_gate_inp." in n}
    pruned = changed(path, tmp_path / "p.gguf", odd, **{"qwen3moe.expert_count": field(V.UINT32, 5)})
    said = {f.key: f.what for _, f in verify(pruned, model.path, options=Options(forward=False)).findings}
    assert "5 of the 7 experts of blk.1.ffn_up_exps.weight" in said["blk.3.ffn_up_exps.weight"]
    assert "5 of the 7 rows of blk.1.ffn_gate_inp.weight" in said["blk.3.ffn_gate_inp.weight"]
    assert said["qwen3moe.expert_count"] == "is 5; the source has 7"


def test_an_identity_block_is_told(source, copy, tmp_path):
    tensors = read(copy).tensors
    zeros = {n: in_type(tensors[n], Q.F32, 0 * floats(tensors[n])) for n in ("blk.3.attn_output.weight", "blk.3.ffn_down.weight")}
    report = verify(changed(copy, tmp_path / "o.gguf", zeros), source.path, options=Options(forward=False))
    assert "block 3 is an identity block: all that it adds is zero" in report.notes
    assert {finding.key for _, finding in report.findings} == zeros.keys()


def meaning_the_same(fields):
    """The same keys, some in other types, reversed, with defaults written out."""
    wider = {key: field(V.UINT64, value.value()) for key, value in fields.items() if value.type == V.UINT32}
    defaults = {"llama.attention.causal": field(V.BOOL, True), "llama.rope.scaling.type": field(V.STRING, "none")}
    return dict(reversed((dict(fields) | wider | defaults).items()))


HARMLESS = {
    "another order of tensors": lambda c, out: write(out, dict(read(c).metadata.fields), list(read(c).tensors.values())[::-1]),
    "another alignment": lambda c, out: changed(c, out, **{"general.alignment": field(V.UINT32, 64)}),
    "parts": lambda c, out: write(out, dict(read(c).metadata.fields), read(c).tensors.values(), limit=Limit(tensors=5)),
    "another name": lambda c, out: changed(c, out, **{"general.name": field(V.STRING, "Renamed")}),
    "another file": lambda c, out: shutil.copy(c, out),
    "file type": lambda c, out: changed(c, out, **{"general.file_type": field(V.UINT32, 2)}),
    "quantization version": lambda c, out: changed(c, out, **{"general.quantization_version": field(V.UINT32, 2)}),
    "keys by their meaning": lambda c, out: write(out, meaning_the_same(read(c).metadata.fields), read(c).tensors.values()),
    "defaults left out": lambda c, out: changed(c, out, drop={"llama.attention.key_length", "llama.rope.freq_base"}),
    "no version": lambda c, out: changed(c, out, drop={"refmodel.version"}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_leaves_the_numbers_alone_changes_no_verdict(name, source, copy, tmp_path):
    out = HARMLESS[name](copy, tmp_path / "out.gguf")
    for words in (WORDS, ""):
        report = verify(out, source.path, words)
        assert (report.verdict, report.findings) == ("proved", [])


def test_a_quantized_copy_is_not_proved_where_llama_cpps_run_is_asked_for(source, copy, tmp_path):
    packed = changed(copy, tmp_path / "q.gguf", {name: in_type(t, Q.Q8_0) for name, t in matrices(copy).items()})
    report = verify(packed, source.path, WORDS, Options(llamacpp=True))
    assert (report.verdict, report.status, report.findings) == ("not proved", 2, [])
    assert {check.name for check in report.checks if "quantized afterwards" in check.skipped} == {"forward", "llama.cpp"}


def test_bfloat16_saved_again_as_float32_is_proved(tmp_path):
    types = lambda name: Q.BF16
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", seed=4, types=types, **WIDE))
    path = routed(model, model.route(WORDS), tmp_path / "c.gguf")
    wide = {
        name: Tensor(name, Q.F32, t.shape, t.file, gguf.quants.dequantize(t.rows, t.type).astype(np.float32).view(np.uint8).ravel())
        for name, t in read(path).tensors.items()
        if t.type == Q.BF16
    }
    report = verify(changed(path, tmp_path / "w.gguf", wide), model.path)
    assert (report.verdict, report.findings) == ("proved", [])
    assert any("with the same values" in note for note in report.notes)


def test_verdicts(source, copy, tmp_path):
    quick = Options(forward=False)
    assert verify(copy, source.path).verdict == "proved"  # claimed by its keys
    assert verify(copy, source.path, options=quick).verdict == "proved except forward"
    nameless = anonymous(copy, tmp_path / "x.gguf")
    assert verify(nameless, source.path, WORDS).verdict == "proved"
    report = verify(nameless, source.path)
    assert (report.verdict, report.status) == ("recovered", 0)
    assert "the route is read from the copy itself, which proves no intention" in report.notes
    assert verify(nameless, source.path, "blocks:0,2").verdict == "wrong"
    assert not [note for note in report.notes if "refmodel." in note]  # nothing is said of what is not there


@pytest.mark.parametrize(
    ("layers", "remark"),
    [
        ([0, 2, 1, 3], "blocks 1 and 2 have changed places at position 1"),
        ([0, 1, 3, 2, 3], "position 2 runs block 3 between blocks 1 and 2"),
        ([1, 2, 3], "it begins with block 1"),
        ([0, 1, 2], "it ends with block 2, the source with 3"),
        ([0, 3, 2, 3], "position 1 runs block 3 between blocks 0 and 2"),
        ([0, 1, 1, 2, 3], ""),
        ([0, 1, 2, 1, 2, 3], ""),
    ],
)
def test_what_looks_like_an_accident_is_remarked(layers, remark, source, tmp_path):
    path = anonymous(routed(source, source.route(layers), tmp_path / "c.gguf"), tmp_path / "x.gguf")
    report = verify(path, source.path, options=Options(forward=False))
    assert report.verdict == "recovered"
    remarks = [note for note in report.notes if note.endswith("?")]
    assert any(remark in note for note in remarks) if remark else not remarks


def test_what_changes_most_comes_first_and_json_has_keys(source, copy, tmp_path):
    fields = {
        "llama.block_count": field(V.UINT32, 5),
        "llama.rope.freq_base": field(V.FLOAT32, 5e5),
        "tokenizer.ggml.eos_token_id": field(V.UINT32, 1),
        "refmodel.route": field(V.STRING, "blocks:0,3"),
    }
    odd = {"blk.1.ffn_up.weight": replace(read(copy).tensors["blk.2.ffn_up.weight"], name="blk.1.ffn_up.weight")}
    said = verify(changed(copy, tmp_path / "o.gguf", odd, **fields), source.path, WORDS, Options(forward=False)).as_json()
    keys = ["llama.block_count", "blk.1.ffn_up.weight", "llama.rope.freq_base", "tokenizer.ggml.eos_token_id", "refmodel.route"]
    assert [finding["key"] for finding in said["findings"]] == keys
    assert said["verdict"] == "wrong"


def test_recovery_shows_what_it_found_where_it_cannot_finish(source, copy, tmp_path):
    other = read(tiny.build(tmp_path / "n.gguf", "llama", seed=5, **WIDE)).tensors
    odd = {n: replace(other[n], name=n) for n in read(copy).tensors if n.startswith("blk.2.")}
    found = recovered(changed(copy, tmp_path / "o.gguf", odd), source.path)
    assert found.recovery.partial == [0, 1, None, 1, 2, 3]
    assert (found.recovery.route, found.status) == (None, 1)


# Folders.


CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "torch_dtype": "bfloat16",
    "hidden_size": 128,
    "num_attention_heads": 4,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "yarn", "factor": 4.0},
    "eos_token_id": [2],
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 5,
    "rms_norm_eps": 1e-6,
}


@pytest.fixture
def folder(tmp_path):
    return folders.build(tmp_path / "source", "qwen3", **CONFIG)


def routed_copy(folder, out):
    return routed_folder(read_folder(folder), Route.of("blocks:1,4", 7), out)


def config_edited(change):
    def apply(copy):
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(change(config) or config))

    return apply


def new_rope(config):
    scaling = config.pop("rope_scaling")
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), "rope_type": scaling["type"], "factor": 4}


def rewritten(kind, prefix=folders.PREFIX, head=False):
    """The weights saved again in another type, under another prefix, or with the head that is the embedding."""

    def apply(copy):
        r = folders.values(7)
        layers = Route.of("blocks:1,4", 7).layers
        root, new = folders.PREFIX.removesuffix("layers."), prefix.removesuffix("layers.")
        tensors = {f"{new}{n.removeprefix(root)}": x for n, x in r.items() if ".layers." not in n}
        for position, layer in enumerate(layers):
            own = f"{folders.PREFIX}{layer}."
            tensors |= {f"{prefix}{position}.{n.removeprefix(own)}": x for n, x in r.items() if n.startswith(own)}
        if head:
            tensors["lm_head.weight"] = tensors[f"{new}embed_tokens.weight"]
        rounded = {n: bfloat16(x) for n, x in tensors.items()}
        config = json.loads((copy / "config.json").read_text())
        shutil.rmtree(copy)
        folders.write(copy, config, rounded, kind)

    return apply


def bfloat16(x):
    return (folders.packed(x, "BF16").view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(x.shape)


SAME = {
    "dtype for torch_dtype": config_edited(lambda c: c.update(dtype=c.pop("torch_dtype"))),
    "rope_parameters for rope_theta and rope_scaling": config_edited(new_rope),
    "one end token": config_edited(lambda c: c.update(eos_token_id=2)),
    "kinds that are all alike listed": config_edited(lambda c: c.update(layer_types=["full_attention"] * 10)),
    "defaults written out": config_edited(
        lambda c: c.update(attention_dropout=0.0, initializer_range=0.02, use_cache=True, hidden_act="silu", attention_bias=False)
    ),
    "defaults left out": config_edited(lambda c: (c.pop("rms_norm_eps"), c.pop("sliding_window"))[:0]),
    "what a loader was told": config_edited(lambda c: c.update(attn_implementation="sdpa", model_max_length=4096)),
    "another order": config_edited(lambda c: dict(reversed(c.items()))),
    "another version": config_edited(lambda c: c.update(transformers_version="5.23.0", _name_or_path="elsewhere")),
    "no window, not even where it would begin": config_edited(lambda c: (c.pop("max_window_layers"),)[:0]),
    "saved again": rewritten("BF16"),
    "saved again in float32": rewritten("F32"),
    "saved again in float16": rewritten("F16"),
    "under other names": rewritten("BF16", "model.language_model.layers."),
    "with a head that is the embedding": rewritten("BF16", head=True),
}


@pytest.mark.parametrize("name", SAME)
def test_a_folder_that_means_the_same_is_not_called_wrong(name, folder, tmp_path):
    copy = routed_copy(folder, tmp_path / "copy")
    SAME[name](copy)
    for words in ("blocks:1,4", ""):
        report = verify(copy, folder, words)
        assert (report.verdict, report.status, report.findings) == ("proved except forward", 0, [])


OTHER = {
    "another RoPE": (config_edited(lambda c: (new_rope(c), c["rope_parameters"].update(rope_theta=1e4))[:0]), "rope_theta"),
    "another factor": (config_edited(lambda c: c["rope_scaling"].update(factor=2.0)), "rope_parameters.factor"),
    "no scaling": (config_edited(lambda c: (c.pop("rope_scaling"),)[:0]), "rope_parameters"),
    "another activation": (config_edited(lambda c: c.update(hidden_act="gelu")), "hidden_act"),
    "another epsilon left out": (config_edited(lambda c: c.update(rms_norm_eps=1e-5)), "rms_norm_eps"),
    "a bias": (config_edited(lambda c: c.update(attention_bias=True)), "attention_bias"),
    "a window": (config_edited(lambda c: c.update(use_sliding_window=True, sliding_window=8)), "layer_types"),
    "an end token": (config_edited(lambda c: c.update(eos_token_id=[2, 3])), "eos_token_id"),
    "a stale count": (
        config_edited(lambda c: c.update(num_hidden_layers=7, rms_norm_eps=1e-5, dtype="float16")),
        "num_hidden_layers",
    ),
    "another dtype": (config_edited(lambda c: c.update(torch_dtype="float16")), "dtype"),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_configuration_that_means_something_else_is_named(name, folder, tmp_path):
    change, key = OTHER[name]
    copy = routed_copy(folder, tmp_path / "copy")
    change(copy)
    report = verify(copy, folder, "blocks:1,4")
    assert report.verdict == "wrong"
    assert key in report.findings[0][1].key
    assert report.findings[0][0] == METADATA


def test_a_folder_without_words_of_its_own_is_recovered(folder, tmp_path):
    copy = routed_copy(folder, tmp_path / "copy")
    config_edited(lambda c: (c.pop("rys_relayer"),)[:0])(copy)
    report = verify(copy, folder)
    assert (report.verdict, report.status) == ("recovered", 0)
    assert verify(copy, folder, "blocks:1,4").verdict == "proved except forward"
