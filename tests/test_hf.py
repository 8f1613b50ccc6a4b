"""Routed Hugging Face folders: the safetensors package judges the files, the configuration is compared value by value."""

import hashlib
import json
import shutil
import sys

import folders
import hf_made
import numpy as np
import pytest
from corruptions import FIRST_FOLDER
from hypothesis import event, given, reject
from hypothesis import strategies as st
from safetensors import safe_open

import refmodel
from refmodel.errors import FileError, MetadataError, OracleError, RefmodelError, RouteError
from refmodel.gguf.writer import Limit
from refmodel.hf.folder import read_folder
from refmodel.hf.safetensors import FolderTensor as T
from refmodel.model.route import Route
from refmodel.surgery.copy_map import folder_plan
from refmodel.surgery.hf_run import run_folders
from refmodel.surgery.hf_write import routed_folder, write_safetensors
from refmodel.surgery.verify import Options, foreseen, recovered, verify
from refmodel.surgery.verify.report import BYTES, METADATA, SEAMS, STRUCTURE

N = 5
KINDS = ["linear_attention", "linear_attention", "full_attention", "linear_attention", "linear_attention"]
TRUNK = "model.language_model.layers."
CONFIG = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text",
        "num_hidden_layers": N,
        "layer_types": KINDS,
        "mlp_only_layers": [1, 4],
        "eos_token_id": [1, 2],
        "full_attention_interval": 3,
        "rope_parameters": {"mrope_section": [2, 1, 1], "rope_theta": 1e7},
        "mtp_num_hidden_layers": 1,
    },
    "vision_config": {"depth": N, "deepstack_visual_indexes": [0, 1, 2, 3, 4], "num_hidden_layers": N},
    "quantization_config": {
        "quant_method": "fp8",
        "modules_to_not_convert": [
            "lm_head",
            "model.visual.blocks.1.attn",
            "model.language_model.layers.1.mlp.gate",
            "model.language_model.layers.3",
            "mtp.layers.0",
        ],
        "config_groups": {"model.language_model.layers.2.self_attn": {"bits": 8}},
    },
}


def stored(name, r, shape=(3, 4), kind="BF16"):
    """Random bytes; BF16, which NumPy does not know, and others."""
    size = int(np.prod(shape)) * {"BF16": 2, "F32": 4, "F8_E4M3": 1}[kind]
    return T(name, kind, shape, r.integers(0, 256, size).astype(np.uint8))


def build(folder, config=CONFIG, behind=0, shards=2):
    """A checkpoint in two shards with an index: a trunk, a vision tower and a prediction head with layers of their own."""
    r = np.random.default_rng(5)
    tensors = [stored("model.language_model.embed_tokens.weight", r, (7, 4))]
    for i in range(N + behind):
        mixer = "linear_attn.A_log" if i < N and KINDS[i] == "linear_attention" else "self_attn.q_proj.weight"
        tensors.append(stored(f"{TRUNK}{i}.{mixer}", r, (4,), "F32"))
        tensors.append(stored(f"{TRUNK}{i}.mlp.gate.weight", r, kind="F8_E4M3"))
    tensors += [stored(f"model.visual.blocks.{i}.attn.qkv.weight", r) for i in range(N)]
    tensors += [
        stored("mtp.layers.0.mlp.weight", r),
        stored("model.language_model.norm.weight", r, (4,)),
        stored("lm_head.weight", r),
    ]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"other weights")
    parts = [tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]] if shards == 2 else [tensors]
    names = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)] if shards == 2 else ["model.safetensors"]
    for name, part in zip(names, parts, strict=True):
        with (folder / name).open("wb") as f:
            write_safetensors(f, part, lambda count: None)
    if shards == 2:
        index = {t.name: name for name, part in zip(names, parts, strict=True) for t in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return folder


@pytest.fixture
def source(tmp_path):
    return build(tmp_path / "source")


def routed(source, words, out, **limits):
    folder = read_folder(source)
    return routed_folder(folder, Route.of(words, N), out, **limits)


def test_layers_configuration_and_provenance_follow_the_map(source, tmp_path):
    out = routed(source, "blocks:1,4", tmp_path / "out")
    layers = [0, 1, 2, 3, 1, 2, 3, 4]
    config = json.loads((out / "config.json").read_text())
    text = config["text_config"]
    assert text["num_hidden_layers"] == 8
    assert text["layer_types"] == [KINDS[layer] for layer in layers]
    assert text["mlp_only_layers"] == [p for p, layer in enumerate(layers) if layer in (1, 4)]
    assert (text["eos_token_id"], text["rope_parameters"]) == ([1, 2], CONFIG["text_config"]["rope_parameters"])
    assert config["vision_config"] == CONFIG["vision_config"]
    assert config["quantization_config"]["modules_to_not_convert"] == [
        "lm_head",
        "model.visual.blocks.1.attn",
        *(f"{TRUNK}{p}" + (".mlp.gate" if layer == 1 else "") for p, layer in enumerate(layers) if layer in (1, 3)),
        "mtp.layers.0",
    ]
    assert list(config["quantization_config"]["config_groups"]) == [f"{TRUNK}2.self_attn", f"{TRUNK}5.self_attn"]
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(source.glob("*.safetensors"))}
    assert config["rys_relayer"] | {"tool": ""} == {
        "source_repo_id": "source",
        "source_num_layers": N,
        "target_num_layers": 8,
        "spec": "blocks:1,4",
        "layer_indices": layers,
        "duplication_counts": {"1": 2, "2": 2, "3": 2},
        "tool": "",
        "source_sha256": digests,
    }
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert list(tmp_path.glob(".*")) == []


def test_the_safetensors_package_reads_the_same_bytes(source, tmp_path):
    out = routed(source, [3, 2, 0, 0], tmp_path / "out", limit=Limit(size=60))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    held, total = read_folder(source), 0
    origins = folder_plan(held, Route.of([3, 2, 0, 0], N)).origins(held.tensors)
    assert index["weight_map"].keys() == origins.keys()
    for shard in sorted(out.glob("*.safetensors")):
        with safe_open(shard, framework="numpy") as f:
            for name in f.keys():  # noqa: SIM118 (it is no mapping)
                assert index["weight_map"][name] == shard.name
                assert f.get_slice(name).get_shape() == list(held.tensors[origins[name]].shape)
                assert f.get_slice(name).get_dtype() == held.tensors[origins[name]].type
    copy = read_folder(out)
    for name, t in copy.tensors.items():
        assert t.data.tobytes() == held.tensors[origins[name]].data.tobytes()
        total += t.data.size
    assert index["metadata"]["total_size"] == total
    assert len(copy.shards) > 2


@given(layers=st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N))
def test_random_routes_are_recovered_and_proved(source, tmp_path, layers):
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    if 2 not in layers:
        event("no layer with keys: refused, transformers does not run it")
        with pytest.raises(RouteError, match="a hybrid without a layer that has keys"):
            routed(source, layers, out)
        reject()  # counted apart
    routed(source, layers, out)
    report = verify(out, source)
    assert report.status == 0, report.findings
    assert recovered(out, source).recovery.route.layers == tuple(layers)
    assert {c.name: c.word for c in report.checks}[BYTES] == "ok"


def test_layers_behind_the_trunk_stay_last(tmp_path):
    source = build(tmp_path / "s", behind=1)
    copy = read_folder(routed(source, [0, 2], tmp_path / "out"))
    assert (copy.n_layer, copy.behind) == (2, 1)
    assert copy.tensors[f"{TRUNK}2.self_attn.q_proj.weight"].data.tobytes() == (
        read_folder(source).tensors[f"{TRUNK}5.self_attn.q_proj.weight"].data.tobytes()
    )


def test_one_file_without_an_index_and_kinds_that_follow_from_the_interval(tmp_path):
    text = {k: v for k, v in CONFIG["text_config"].items() if k != "layer_types"}
    source = build(tmp_path / "s", CONFIG | {"text_config": text}, shards=1)
    config = json.loads((routed(source, "blocks:2,4", tmp_path / "out") / "config.json").read_text())
    assert config["text_config"]["layer_types"] == [KINDS[layer] for layer in (0, 1, 2, 3, 2, 3, 4)]


def config_with(text=None, **top):
    return CONFIG | top | {"text_config": CONFIG["text_config"] | (text or {})}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_with({"my_list": [9.5] * N}), r"text_config\.my_list has one value for each layer"),
        (config_with({"rope_parameters": {"per": ["a"] * N}}), r"text_config\.rope_parameters\.per has one value"),
        (config_with({"special_layers": [0, 3]}), r"special_layers has what may be numbers of layers"),
        (config_with({"layer_types": KINDS[1:]}), r"layer_types has 4 values; expected 5"),
        (config_with({"first_k_dense_replace": 1}), "first_k_dense_replace says what a layer is by its place"),
        (config_with({"num_hidden_layers": "5"}), r"num_hidden_layers is \['5'\]"),
        (CONFIG | {"text_config": 7}, "num_hidden_layers is missing"),
        (config_with(num_hidden_layers=4), r"num_hidden_layers is \[4, 5\]"),
        (config_with(quantization_config={"ignore": [r"re:.*layers\.3\..*"]}), r"pattern re:.*cannot follow the route"),
    ],
)
def test_what_is_not_known_stops_the_copy_by_name(config, message, tmp_path):
    source = build(tmp_path / "s", config)
    with pytest.raises(MetadataError, match=message):
        routed(source, "blocks:1,3", tmp_path / "out")
    with pytest.raises(MetadataError, match=message):
        foreseen(source, "blocks:1,3")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def edited(out, change):
    """The configuration with a value changed by a function."""
    config = json.loads((out / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config))


def in_text(**values):
    return lambda out: edited(out, lambda config: config["text_config"].update(values))


def in_block(**values):
    return lambda out: edited(out, lambda config: config["rys_relayer"].update(values))


def rewritten(out, change):
    """The weights with a function of (name -> tensor) applied."""
    tensors = {t.name: T(t.name, t.type, t.shape, t.data.copy()) for t in read_folder(out).tensors.values()}
    change(tensors)
    with (out / "model.safetensors").open("wb") as f:
        write_safetensors(f, list(tensors.values()), lambda count: None)


def put(tensors, name, t):
    tensors[name] = T(name, t.type, t.shape, t.data)


def moved(origins):
    """Each of these layers gets another layer's tensors: layer -> where they come from."""

    def change(tensors):
        before = dict(tensors)
        for layer in origins:
            for name in [name for name in tensors if name.startswith(f"{TRUNK}{layer}.")]:
                del tensors[name]
        for layer, source in origins.items():
            for name, t in before.items():
                if name.startswith(f"{TRUNK}{source}."):
                    put(tensors, name.replace(f"{TRUNK}{source}.", f"{TRUNK}{layer}."), t)

    return lambda out: rewritten(out, change)


def stale_modules(out):
    stale = CONFIG["quantization_config"]["modules_to_not_convert"]
    edited(out, lambda config: config["quantization_config"].update(modules_to_not_convert=stale))


def on_bytes(change):
    def apply(out):
        path = out / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def swapped(a, b):
    def change(tensors):
        first, second = tensors[a], tensors[b]
        put(tensors, a, second)
        put(tensors, b, first)

    return lambda out: rewritten(out, change)


def another_model(tensors):
    r = np.random.default_rng(99)
    for name, t in tensors.items():
        if name.startswith(f"{TRUNK}3."):
            put(tensors, name, stored(name, r, t.shape, t.type))


def twice(out):
    shutil.copy(out / "model.safetensors", out / "model-2.safetensors")


GATE = "mlp.gate.weight"
RIGHT = [KINDS[layer] for layer in (0, 1, 2, 3, 1, 2, 3, 4)]

# What is done to the copy -> the check that must find it, and where.
CORRUPTIONS = {
    "one stale kind": (
        in_text(layer_types=[*RIGHT[:5], "linear_attention", *RIGHT[6:]]),
        METADATA,
        "config.json: text_config.layer_types[5]",
    ),
    "kinds not remapped": (in_text(layer_types=KINDS + KINDS[:3]), METADATA, "config.json: text_config.layer_types[5]"),
    "kinds of the source": (in_text(layer_types=KINDS), METADATA, "config.json: text_config.layer_types (length)"),
    "numbers of layers not remapped": (in_text(mlp_only_layers=[1, 4]), METADATA, "config.json: text_config.mlp_only_layers[2]"),
    "the source's count": (in_text(num_hidden_layers=5), METADATA, "config.json: text_config.num_hidden_layers"),
    "a count too high": (in_text(num_hidden_layers=9), STRUCTURE, "config.json: num_hidden_layers"),
    "modules not renumbered": (
        stale_modules,
        METADATA,
        "config.json: quantization_config.modules_to_not_convert (length)",
    ),
    "another interval": (in_text(full_attention_interval=4), METADATA, "config.json: text_config.full_attention_interval"),
    "another vision tower": (
        lambda out: edited(out, lambda config: config["vision_config"].update(depth=8)),
        METADATA,
        "config.json: vision_config.depth",
    ),
    "a lying spec": (in_block(spec="blocks:1,5"), METADATA, "rys_relayer.spec"),
    "a lying map": (in_block(layer_indices=[0, 1, 2, 3, 2, 3, 4, 4]), METADATA, "rys_relayer.layer_indices"),
    "another source's count": (in_block(source_num_layers=6), METADATA, "config.json: rys_relayer.source_num_layers"),
    "a wrong count of its own": (in_block(target_num_layers=5), METADATA, "config.json: rys_relayer.target_num_layers"),
    "the last bit": (on_bytes(lambda b: b[:-1] + bytes([b[-1] ^ 1])), BYTES, "lm_head.weight"),
    "a truncated tail": (on_bytes(lambda b: b[:-5]), STRUCTURE, "the folder"),
    "only the header": (on_bytes(lambda b: b[:300]), STRUCTURE, "the folder"),
    "bytes behind the end": (on_bytes(lambda b: b + bytes(8)), STRUCTURE, "the folder"),
    "two layers' tensors swapped": (swapped(f"{TRUNK}4.{GATE}", f"{TRUNK}5.{GATE}"), BYTES, f"{TRUNK}4.{GATE}"),
    "two towers' tensors swapped": (
        swapped("model.visual.blocks.0.attn.qkv.weight", "model.visual.blocks.1.attn.qkv.weight"),
        BYTES,
        "model.visual.blocks.0.attn.qkv.weight",
    ),
    "the map shifted": (moved(dict(enumerate([1, 2, 3, 4, 2, 3, 7, 0]))), SEAMS, "position 3"),
    "two layers swapped": (moved({3: 4, 4: 3}), SEAMS, "position 3"),
    "a layer of another kind": (moved({5: 4}), STRUCTURE, f"{TRUNK}5.self_attn.q_proj.weight"),
    "a layer of another model": (lambda out: rewritten(out, another_model), BYTES, f"{TRUNK}3.{GATE}"),
    "one layer too many": (moved({8: 0}), STRUCTURE, f"{TRUNK}8.{GATE}"),
    "a tensor missing": (
        lambda out: rewritten(out, lambda tensors: tensors.pop(f"{TRUNK}4.linear_attn.A_log")),
        STRUCTURE,
        f"{TRUNK}4.linear_attn.A_log",
    ),
    "no prediction head": (
        lambda out: rewritten(out, lambda tensors: tensors.pop("mtp.layers.0.mlp.weight")),
        STRUCTURE,
        "mtp.layers.0.mlp.weight",
    ),
    "another shape": (
        lambda out: rewritten(
            out, lambda t: t.update({"lm_head.weight": T("lm_head.weight", "BF16", (4, 3), t["lm_head.weight"].data)})
        ),
        STRUCTURE,
        "lm_head.weight",
    ),
    "another type": (
        lambda out: rewritten(
            out, lambda t: t.update({"lm_head.weight": T("lm_head.weight", "F16", (3, 4), t["lm_head.weight"].data)})
        ),
        STRUCTURE,
        "lm_head.weight",
    ),
    "a tensor in two files": (twice, STRUCTURE, "the folder"),
    "no configuration": (lambda out: (out / "config.json").unlink(), STRUCTURE, "the folder"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_found_and_named(name, source, tmp_path):
    corrupt, check, where = CORRUPTIONS[name]
    out = routed(source, "blocks:1,4", tmp_path / "out")
    corrupt(out)
    report = verify(out, source, "blocks:1,4")
    assert report.status == 1
    assert report.findings[0][1].key == FIRST_FOLDER[name]
    assert (check, where) in [(found_by, finding.where) for found_by, finding in report.findings]


def test_another_window_is_named_at_its_seam(source, tmp_path):
    report = verify(routed(source, "blocks:1,5", tmp_path / "out"), source, "blocks:1,4")
    assert any(check == SEAMS and f.where == "position 4" for check, f in report.findings)
    assert report.recovered == "blocks:1,5"


def test_a_folder_that_is_there_or_lies_in_the_source_is_left_alone(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("kept")
    (tmp_path / "link").symlink_to(source)
    before = {p: p.read_bytes() for p in source.iterdir()}
    for out in (tmp_path / "full", source, tmp_path / "link", source / "inner", tmp_path / "no" / "where"):
        with pytest.raises(FileError):
            routed(source, "blocks:1,4", out)
    assert {p: p.read_bytes() for p in source.iterdir()} == before
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["x"]
    (tmp_path / "empty").mkdir()
    assert verify(routed(source, "blocks:1,4", tmp_path / "empty"), source).status == 0


def test_an_error_while_copying_leaves_nothing(source, tmp_path):
    def full(count):
        raise OSError(28, "No space left on device")

    folder = read_folder(source)
    with pytest.raises(FileError, match="out: cannot be written: No space left on device; no part of it was left"):
        routed_folder(folder, Route.of("blocks:1,4", N), tmp_path / "out", seen=full)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").write_text("[]"),
        lambda f: (f / "config.json").unlink(),
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}'),
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "missing.safetensors"}}'),
        lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 8 + b"{}"),
        lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0[]"),
        lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"\x02"),
        lambda f: shutil.copy(f / "model-00001-of-00002.safetensors", f / "model-00002-of-00002.safetensors"),
        lambda f: (f / "config.json").write_text(json.dumps(CONFIG | {"text_config": {"num_hidden_layers": 9}})),
    ],
)
def test_a_damaged_source_is_an_error_of_one_line(damage, source, tmp_path):
    damage(source)
    with pytest.raises(RefmodelError) as error:
        routed(source, "blocks:1,4", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise ImportError('No module named torch')", "cannot run transformers"),
        ("raise SystemExit(3)", "ended with status 3 while it ran transformers"),
    ],
)
def test_a_python_that_cannot_run_transformers_is_named(program, message, source, tmp_path, monkeypatch):
    """A Python whose torch is this program."""
    (tmp_path / "torch.py").write_text(program)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={tmp_path}\nexec {sys.executable} "$2"\n')
    python.chmod(0o755)
    monkeypatch.setenv("REFMODEL_HF_PYTHON", str(python))
    with pytest.raises(OracleError, match=message):
        run_folders(source, source, [0], [[1]])
    monkeypatch.setenv("REFMODEL_HF_PYTHON", str(tmp_path / "nothing"))
    with pytest.raises(OracleError, match=r"nothing \(from REFMODEL_HF_PYTHON\) cannot be started"):
        run_folders(source, source, [0], [[1]])


def test_each_format_has_its_own_runtime(source, tmp_path):
    out = routed(source, "blocks:1,4", tmp_path / "out")
    with pytest.raises(FileError, match=r"llama\.cpp runs GGUF files; folders take --against transformers"):
        verify(out, source, options=Options(llamacpp=True))
    with pytest.raises(MetadataError, match="vocab_size is missing"):
        verify(out, source, options=Options(transformers=True))


@pytest.mark.parametrize("sharded", [False, True])
def test_mistrals_own_weights_next_to_transformers_are_left_alone(sharded, tmp_path):
    """As mistralai publishes: the same weights once more, under other names, with a configuration of their own."""
    path = hf_made.build(tmp_path / "source", "llama")
    right = refmodel.load(path).forward([1, 2, 3])
    if sharded:
        folders.reshard(path, 2)
    again = hf_made.values("llama", hf_made.config_of("llama"))
    again = {name.removeprefix("model.").replace("self_attn.q_proj", "attention.wq"): x for name, x in again.items()}
    with (path / "consolidated.safetensors").open("wb") as file:
        write_safetensors(file, hf_made.stored(again), lambda count: None)
    (path / "params.json").write_text('{"n_layers": 3}')
    assert np.array_equal(refmodel.load(path).forward([1, 2, 3]), right)
    copy = routed_folder(read_folder(path), Route.of("blocks:1,2", 3), tmp_path / "copy")
    assert not {"params.json", "consolidated.safetensors"} & {file.name for file in copy.iterdir()}
    report = verify(copy, path)
    assert (report.verdict, report.findings) == ("proved", [])
    assert verify(path, path, "identity", Options(forward=False)).notes[-1].endswith("not looked at: consolidated.safetensors")
