"""Corruptions of copies, each with the key that must be named first, and changes that leave the numbers alone: 150 of each.

A hundred of the corruptions are in test_verify.py and test_hf.py.
"""

import json
import shutil

import corruptions
import folders
import harmless
import numpy as np
import pytest
import tiny
from corruptions import (
    BASE,
    FOLDERS,
    FULL,
    SETTINGS,
    TEXTS,
    TOKENIZER,
    said,
    without_template,
)
from folders import config, dropped, file
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as V
from shares import diagonal
from test_living import HARMLESS, WIDE, WORDS, changed, floats, in_type, matrices

import refmodel
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field, write
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.surgery.gguf import routed, texts
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, recovered, verify

QUICK = Options(forward=False)
PROVED = "proved except forward"


def first(report):
    """The verdict, and the key of the first finding."""
    return report.verdict, report.findings[0][1].key if report.findings else ""


def pair(folder, model_type="qwen3", keys=None):
    """A source with a tokenizer and code, and its copy under WORDS' window."""
    kept = {key: value for key, value in (BASE | (keys or {})).items() if value is not None}
    source = folders.build(folder / "s", model_type, **kept)
    for name, text in (TEXTS | ({"modeling_x.py": "x = 1"} if "auto_map" in kept else {})).items():
        (source / name).write_text(text)
    return source, routed_folder(read_folder(source), Route.of("blocks:1,4", 7), folder / "c")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_says_or_holds_something_else_is_wrong_and_its_cause_comes_first(name, tmp_path):
    change, key, *rest = FOLDERS[name]
    source, copy = pair(tmp_path, *rest)
    change(copy)
    assert first(verify(copy, source, "blocks:1,4")) == ("wrong", key)


SMALL = WIDE | {"E": 64, "F": 64, "D": 16, "n_rot": 16}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A llama with RoPE scaled, experts or not, whose matrices can be packed, and its copy."""
    folder = tmp_path_factory.mktemp("w")
    source = refmodel.load(tiny.build(folder / "m.gguf", "llama", seed=4, scaling={"factor": 4.0}, **SMALL))
    return source, routed(source, source.route(WORDS), folder / "c.gguf")


NORM, Q_OF_3, UP = "blk.3.attn_norm.weight", "blk.3.attn_q.weight", "blk.3.ffn_up.weight"


def packed(kind, name="", change=lambda x: x):
    """All matrices in another type, the values of one changed before."""

    def apply(copy):
        held = matrices(copy)
        return {n: in_type(t, kind, change(floats(t).copy()) if n == name else None) for n, t in held.items()}, {}

    return apply


def one(name, change):
    """One tensor's values changed, in its own type."""
    return lambda copy: ({name: in_type(read(copy).tensors[name], Q.F32, change(floats(read(copy).tensors[name]).copy()))}, {})


def keys(**fields):
    return lambda copy: ({}, fields)


def at(i, j, value):
    def change(x):
        x[i, j] = value(x) if callable(value) else value
        return x

    return change


def small_adapter(x):
    """What an adapter of rank 1 adds: far less than what bfloat16 rounds."""
    r = np.random.default_rng(1)
    return x + 1e-4 * np.outer(r.standard_normal(len(x)), r.standard_normal(x.shape[1])).astype(np.float32)


def rows(*order):
    def change(x):
        x[list(order)] = x[list(order[1:] + order[:1])]
        return x

    return change


L = "llama."
# What is done to a GGUF afterwards -> the key that must come first.
LIVING = {
    **{
        f"{kind.name}, {harm}": (packed(kind, UP, change), UP)
        for kind in (Q.Q8_0, Q.Q4_0, Q.Q5_1, Q.BF16, Q.F16)
        for harm, change in {
            "a row of zeros": lambda x: np.where(np.arange(len(x))[:, None] == 7, 0, x),
            "a row twice as large": lambda x: np.where(np.arange(len(x))[:, None] == 7, 2 * x, x),
            "two rows swapped": rows(3, 4),
            "reversed": lambda x: x[::-1],
        }.items()
    },
    "Q8_0, one value": (packed(Q.Q8_0, UP, at(3, 4, lambda x: 0.02 + x[3, 4])), UP),
    "BF16, one value": (packed(Q.BF16, UP, at(3, 4, lambda x: 1.01 * x[3, 4])), UP),
    "BF16, a small adapter merged": (packed(Q.BF16, UP, small_adapter), UP),
    "F16, a small adapter merged": (packed(Q.F16, UP, small_adapter), UP),
    "a small adapter merged": (one(Q_OF_3, small_adapter), Q_OF_3),
    "queries scaled": (one(Q_OF_3, lambda x: 0.76 * x), Q_OF_3),
    "zeros": (one(Q_OF_3, lambda x: 0 * x), Q_OF_3),
    "a norm of ones": (one(NORM, lambda x: 0 * x + 1), NORM),
    "one number of a norm": (one(NORM, lambda x: x + (np.arange(len(x)) == 9)), NORM),
    "not a number": (one(Q_OF_3, at(1, 2, np.nan)), Q_OF_3),
    "infinite": (one(Q_OF_3, at(1, 2, np.inf)), Q_OF_3),
    "a transposed matrix": (one(Q_OF_3, lambda x: x.T), Q_OF_3),
    "RoPE no longer scaled": (keys(**{f"{L}rope.scaling.type": field(V.STRING, "none")}), f"{L}rope.scaling.type"),
    "RoPE by YaRN": (keys(**{f"{L}rope.scaling.type": field(V.STRING, "yarn")}), f"{L}rope.scaling.type"),
    "RoPE by another factor": (keys(**{f"{L}rope.scaling.factor": field(V.FLOAT32, 2.0)}), f"{L}rope.scaling.factor"),
    "RoPE for fewer dimensions": (keys(**{f"{L}rope.dimension_count": field(V.UINT32, 32)}), f"{L}rope.dimension_count"),
    "RoPE scaled by an older key": (keys(**{f"{L}rope.scale_linear": field(V.FLOAT32, 2.0)}), f"{L}rope.scale_linear"),
    "attention scaled": (keys(**{f"{L}attention.scale": field(V.FLOAT32, 0.5)}), f"{L}attention.scale"),
    "a window": (keys(**{f"{L}attention.sliding_window": field(V.UINT32, 8)}), f"{L}attention.sliding_window"),
    "logits scaled": (keys(**{f"{L}logit_scale": field(V.FLOAT32, 2.0)}), f"{L}logit_scale"),
    "no cause": (keys(**{f"{L}attention.causal": field(V.BOOL, False)}), f"{L}attention.causal"),
    "a name by which spaces are stripped": (keys(**{"general.name": field(V.STRING, "Phi-3 mini")}), "general.name"),
    "what is said of single tensors": (
        keys(**{"general.tensor_extra.name": texts([UP]), "general.tensor_extra.prec_a4": field(V.ARRAY, [False], V.BOOL)}),
        "general.tensor_extra.name",
    ),
    "another cut of the text": (keys(**{"tokenizer.ggml.pre": field(V.STRING, "gpt-2")}), "tokenizer.ggml.pre"),
    "a first token": (keys(**{"tokenizer.ggml.add_bos_token": field(V.BOOL, True)}), "tokenizer.ggml.add_bos_token"),
    "a chat": (keys(**{"tokenizer.chat_template": field(V.STRING, "x")}), "tokenizer.chat_template"),
    "an end of a turn": (keys(**{"tokenizer.ggml.eot_token_id": field(V.UINT32, 5)}), "tokenizer.ggml.eot_token_id"),
}


@pytest.mark.parametrize("name", LIVING)
def test_a_file_that_went_on_living_as_something_else_is_wrong_and_its_cause_comes_first(name, wide, tmp_path):
    source, copy = wide
    tensors, fields = LIVING[name][0](copy)
    report = verify(changed(copy, tmp_path / "o.gguf", tensors, **fields), source.path, WORDS, QUICK)
    assert first(report) == ("wrong", LIVING[name][1])


def test_there_are_150_corruptions():
    assert len(corruptions.FIRST_GGUF) + len(corruptions.FIRST_FOLDER) + len(FOLDERS) + len(LIVING) >= 150


# Changes that leave the numbers alone.


ARCHS = ["llama", "qwen3moe", "qwen35", "qwen3next", "gemma3"]


@pytest.fixture(scope="module")
def every(request, tmp_path_factory):
    """A model of some architectures and its copy."""
    folder = tmp_path_factory.mktemp("e")
    shape = {"n_nextn": 1} if request.param in tiny.DELTA else {"n_layer": 4}
    source = refmodel.load(tiny.build(folder / "m.gguf", request.param, seed=4, **shape))
    return source, routed(source, source.route(WORDS), folder / "c.gguf")


def plain(fields):
    """Whole numbers in other types, and numbers that nothing depends on."""
    narrow = {key: field(V.UINT16, value.value()) for key, value in fields.items() if value.type == V.UINT32}
    return dict(sorted((dict(fields) | narrow).items()))


SAME_FILE = {
    **{name: change for name, change in HARMLESS.items() if name not in ("keys by their meaning", "defaults left out")},
    "keys in narrower types": lambda c, out: write(out, plain(read(c).metadata.fields), read(c).tensors.values()),
    "more about the file": lambda c, out: changed(
        c, out, **{"general.url": field(V.STRING, "x"), "general.type": field(V.STRING, "model")}
    ),
    "how to sample": lambda c, out: changed(c, out, **{"general.sampling.temp": field(V.FLOAT32, 0.5)}),
    "how it was quantized": lambda c, out: changed(c, out, **{"quantize.imatrix.file": field(V.STRING, "x")}),
    "a large alignment": lambda c, out: changed(c, out, **{"general.alignment": field(V.UINT32, 4096)}),
    "matrices in Q8_0, if they can be": lambda c, out: changed(
        c, out, {n: in_type(t, Q.Q8_0) for n, t in matrices(c).items() if not t.shape[1] % 32}
    ),
    "matrices in float16": lambda c, out: changed(c, out, {n: in_type(t, Q.F16) for n, t in matrices(c).items()}),
    "matrices in bfloat16": lambda c, out: changed(c, out, {n: in_type(t, Q.BF16) for n, t in matrices(c).items()}),
    **harmless.FILES,
}


NARROWER = {name for name in SAME_FILE if name.startswith("matrices")}
SOURCE_LIVED = [name for name in SAME_FILE if name not in NARROWER | {"no version"}]  # such as they could be done to a source


@pytest.mark.parametrize(("name", "every"), diagonal(SAME_FILE, ARCHS), indirect=["every"])
def test_a_file_with_the_same_numbers_is_not_wrong(name, every, tmp_path):
    source, copy = every
    report = verify(SAME_FILE[name](copy, tmp_path / "o.gguf"), source.path, WORDS, QUICK)
    assert (report.verdict, report.findings) == (PROVED, [])


@pytest.mark.parametrize(("name", "every"), diagonal(SOURCE_LIVED, ARCHS), indirect=["every"])
def test_a_source_that_was_saved_again_has_the_same_copies(name, every, tmp_path):
    """Its own sha256 is another; that is remarked, and nothing else depends on it."""
    source, copy = every
    again = SAME_FILE[name](source.path, tmp_path / "s.gguf")
    report = verify(copy, again, options=QUICK)
    assert (report.verdict, report.findings) == (PROVED, [])
    remark = [note for note in report.notes if note.startswith("refmodel.source.sha256 is ")]
    assert len(remark) == (read(again).sha256() != source.file.sha256())
    assert recovered(copy, again).status == 0


@pytest.mark.parametrize("every", ["llama"], indirect=True)
def test_a_hash_of_the_source_that_does_not_fit_is_a_remark_and_excuses_nothing(every, tmp_path):
    source, copy = every
    other = changed(copy, tmp_path / "o.gguf", **{"refmodel.source.sha256": field(V.STRING, "0" * 64)})
    report = verify(other, source.path, options=QUICK)
    assert (report.verdict, report.findings) == (PROVED, [])
    assert any(note.startswith("refmodel.source.sha256 is 000000000000…") for note in report.notes)
    assert not any("sha256" in note for note in verify(copy, source.path, options=QUICK).notes)
    name = "blk.1.attn_norm.weight"
    for path, weight in ((source.path, "blk.1.attn_norm.weight"), (copy, "blk.3.attn_norm.weight")):
        t = read(path).tensors[weight]
        odd = changed(path, tmp_path / "w.gguf", {weight: in_type(t, Q.F32, floats(t) + (np.arange(t.shape[0]) == 2))})
        report = verify(copy, odd, WORDS, QUICK) if path == source.path else verify(odd, source.path, WORDS, QUICK)
        assert first(report) == ("wrong", name if path == source.path else weight)
    odd = changed(source.path, tmp_path / "k.gguf", **{f"{source.architecture}.rope.freq_base": field(V.FLOAT32, 12345.0)})
    assert first(verify(copy, odd, WORDS, QUICK)) == ("wrong", f"{source.architecture}.rope.freq_base")


AFTERWARDS = {
    **{kind.name: packed(kind) for kind in (Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.F16, Q.BF16)},
    "linear said": keys(**{f"{L}rope.scaling.type": field(V.STRING, "linear")}),
    "a length that RoPE has anyway": keys(**{f"{L}rope.scaling.original_context_length": field(V.UINT32, 512)}),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_a_file_that_went_on_living_is_not_wrong(name, wide, tmp_path):
    source, copy = wide
    tensors, fields = AFTERWARDS[name](copy)
    report = verify(changed(copy, tmp_path / "o.gguf", tensors, **fields), source.path, WORDS, QUICK)
    assert (report.verdict, report.findings) == (PROVED, [])


def pairs_for_texts():
    """The tokenizer with its merges in pairs, as newer versions of tokenizers write them, and in another order."""
    held = json.loads(TOKENIZER)
    held["model"] |= {"merges": [pair.split() for pair in held["model"]["merges"]], "byte_fallback": False, "dropout": None}
    return json.dumps(dict(reversed((held | {"truncation": None, "version": "1.1"}).items())), indent=2)


def forgotten(copy):
    for name in TEXTS:
        (copy / name).unlink()


def scaled_alike(copy):
    """The weights saved again in shards of another name and order."""
    folders.reshard(copy, 3, "part-{}.safetensors")


ROPE = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
SAME_FOLDER = {
    "dtype for torch_dtype": lambda copy: (dropped("torch_dtype")(copy), config(dtype="bfloat16")(copy)),
    "no dtype": dropped("torch_dtype"),
    "no architectures": dropped("architectures"),
    "RoPE in its new form": lambda copy: (dropped("rope_theta")(copy), config(**ROPE)(copy)),
    "RoPE in both forms alike": config(**ROPE),
    "no RoPE scaling": config(rope_scaling=None),
    "RoPE scaled by default": config(rope_scaling={"type": "default"}),
    "a whole number": config(rope_theta=1000000),
    "kinds that are all alike": config(layer_types=[FULL] * 10),
    "another order of keys": lambda copy: folders.edit(
        copy, lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=4)
    ),
    "defaults written out": config(attention_bias=False, attention_dropout=0.0, hidden_act="silu", use_cache=True, is_causal=True),
    "how it is trained": config(initializer_range=0.1, use_cache=False, attention_dropout=0.5, output_attentions=False),
    "how it is sampled": config(temperature=0.1, top_k=5),
    "a token for padding": config(pad_token_id=3),
    "one end token in a list": config(eos_token_id=[2]),
    "another name": config(_name_or_path="elsewhere", transformers_version="5.23.0", _attn_implementation="sdpa"),
    "no mark of ours": dropped("rys_relayer"),
    "shards": lambda copy: folders.reshard(copy, 2),
    "shards of other names": scaled_alike,
    "saved again": folders.tensors(lambda t: None),
    "saved again in float32": folders.tensors(lambda t: None, "F32"),
    "saved again in float16": folders.tensors(lambda t: t.update({n: x.astype(np.float16) for n, x in t.items()}), "F16"),
    "a head that is the embedding": folders.tensors(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]})),
    "a computed buffer": folders.tensors(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(16)})),
    "merges in pairs": file("tokenizer.json", pairs_for_texts()),
    "a chat in its own file": without_template("{{ messages }}"),
    "a chat with a name": file(
        "tokenizer_config.json", said(SETTINGS, chat_template=[{"name": "default", "template": "{{ messages }}"}])
    ),
    "an end token in full": file("tokenizer_config.json", said(SETTINGS, eos_token={"content": "</s>", "lstrip": False})),
    "more about tokens": file(
        "tokenizer_config.json", said(SETTINGS, model_max_length=5, tokenizer_class="X", add_eos_token=False)
    ),
    "no tokenizer": forgotten,
    "no tokenizer.json": lambda copy: (copy / "tokenizer.json").unlink(),
    "no generation_config.json": lambda copy: (copy / "generation_config.json").unlink(),
    "another temperature": file("generation_config.json", '{"eos_token_id": [2], "temperature": 0.1}'),
    "a readme": file("README.md", "x"),
    "code that nothing names": file("modeling_y.py", "y = 1"),
    "other weights": lambda copy: shutil.copy(copy / "model.safetensors", copy / "consolidated.bin"),
    "a link": lambda copy: (
        (copy / "model.safetensors").rename(copy / "blob"),
        (copy / "model.safetensors").symlink_to(copy / "blob"),
    ),
    **harmless.FOLDERS,
}


@pytest.mark.parametrize(("name", "model_type"), diagonal(SAME_FOLDER, ["qwen3", "llama"]))
def test_a_folder_with_the_same_numbers_is_not_wrong(name, model_type, tmp_path):
    source, copy = pair(tmp_path, model_type)
    SAME_FOLDER[name](copy)
    report = verify(copy, source, "blocks:1,4")
    assert (report.verdict, report.findings) == (PROVED, [])


def test_a_size_that_the_class_derives_is_that_and_no_other(tmp_path):
    """Written out as what follows from the other sizes it says nothing; as the class's own example has it, it is wrong."""
    source, copy = pair(tmp_path, "llama", {"head_dim": None, "num_key_value_heads": None})
    text = (copy / "config.json").read_text()
    for sizes in ({"head_dim": 32}, {"num_key_value_heads": 4}, {"head_dim": None, "num_key_value_heads": None}):
        config(**sizes)(copy)
        assert verify(copy, source, "blocks:1,4").findings == []
    for key, value in (("head_dim", 128), ("num_key_value_heads", 32), ("num_key_value_heads", 2)):
        (copy / "config.json").write_text(text)
        config(**{key: value})(copy)
        assert first(verify(copy, source, "blocks:1,4")) == ("wrong", key)


RECIPE = """slices:
- sources:
  - model: a/b
    layer_range: [0, 4]
- sources:
  - model: a/b
    layer_range:
    - 1
    - 7
merge_method: passthrough
dtype: bfloat16
"""
RIGHT = "mergekit_config.yml says [0, 4] [1, 7], that is blocks:1,4: right"
RECIPES = {  # the recipe next to a copy -> the verdict where nothing else says a route, and the remark
    "right": (RECIPE, PROVED, RIGHT),
    "another route": (
        RECIPE.replace("- 1\n", "- 2\n"),
        "recovered",
        "[0, 4] [2, 7] (that is blocks:2,4), but the tensors are blocks:1,4",
    ),
    "beyond the source": (
        RECIPE.replace("[0, 4]", "[0, 99999]"),
        "recovered",
        "[0, 99999] [1, 7] (that is no route of 7 blocks), but",
    ),
    "no ranges": ("merge_method: passthrough\n", "recovered", "(that is no route of 7 blocks), but"),
    "two models": (RECIPE.replace("a/b", "c/d", 1), "recovered", ""),
    "another method": (RECIPE.replace("passthrough", "slerp"), "recovered", ""),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_of_mergekit_claims_a_route(name, tmp_path):
    text, verdict, words = RECIPES[name]
    source, copy = pair(tmp_path)
    dropped("rys_relayer")(copy)
    (copy / "mergekit_config.yml").write_text(text)
    report = verify(copy, source, options=QUICK)
    assert (report.verdict, report.findings, report.route) == (verdict, [], "blocks:1,4")
    remarks = [note for note in report.notes if "mergekit_config.yml" in note]
    assert any(words in note for note in remarks) if words else not remarks
    (source / "mergekit_config.yml").write_text(text)  # then it tells how the source was made
    assert verify(copy, source, options=QUICK).verdict == "recovered"


def test_there_are_150_harmless_changes():
    assert len(SAME_FILE) + len(SOURCE_LIVED) + len(AFTERWARDS) + len(SAME_FOLDER) >= 150


def test_a_list_about_single_tensors_follows_the_map(tmp_path):
    """general.tensor_extra.name lists tensors by name, and another list what llama.cpp does with each."""
    plain_file = read(tiny.build(tmp_path / "p.gguf", "llama", seed=4))
    lists = {
        "general.tensor_extra.name": texts(["blk.1.ffn_up.weight", "output.weight", "blk.0.ffn_up.weight"]),
        "general.tensor_extra.prec_a4": field(V.ARRAY, [False, True, True], V.BOOL),
    }
    source = refmodel.load(write(tmp_path / "m.gguf", dict(plain_file.metadata.fields) | lists, plain_file.tensors.values()))
    copy = routed(source, source.route("layers:1,1,0"), tmp_path / "c.gguf")
    md = read(copy).metadata
    said_of = dict(zip(md["general.tensor_extra.name"], md["general.tensor_extra.prec_a4"].tolist(), strict=True))
    assert said_of == {
        "blk.0.ffn_up.weight": False,
        "blk.1.ffn_up.weight": False,
        "blk.2.ffn_up.weight": True,
        "output.weight": True,
    }
    stale = changed(copy, tmp_path / "o.gguf", **lists)
    assert first(verify(stale, source.path, "layers:1,1,0", QUICK)) == ("wrong", "general.tensor_extra.name")
    fewer = lists | {"general.tensor_extra.prec_a4": field(V.ARRAY, [False], V.BOOL)}
    odd = refmodel.load(write(tmp_path / "x.gguf", dict(plain_file.metadata.fields) | fewer, plain_file.tensors.values()))
    with pytest.raises(refmodel.errors.MetadataError, match="lists of unlike lengths"):
        routed(odd, odd.route("layers:1,1,0"), tmp_path / "y.gguf")
