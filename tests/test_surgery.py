"""Routed copies: gguf-py judges the file, the forward pass judges what it computes."""

import hashlib
import os
import signal
import subprocess
import sys
from math import inf

import gguf
import numpy as np
import pytest
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import same_bits
from shares import diagonal
from strategies import examples

import refmodel
from refmodel.arch import ARCHITECTURES, HYBRID
from refmodel.compare.dequantized import dequantized
from refmodel.errors import FileError, MetadataError, RouteError
from refmodel.gguf.metadata import Metadata
from refmodel.gguf.reader import GgufFile, read
from refmodel.gguf.writer import Limit, field, write
from refmodel.model.route import Route
from refmodel.surgery.copy_map import Plan
from refmodel.surgery.gguf import routed
from refmodel.surgery.runtimes import runners

TOKENS = [7, 3, 250, 9, 9]


def made(arch, folder):
    """A tiny model, with a prediction block where the architecture has one."""
    return refmodel.load(tiny.build(folder / "m.gguf", arch, seed=9, **({"n_nextn": 1} if arch in tiny.DELTA else {})))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("s"))


@settings(max_examples=examples(5))
@given(data=st.data())
def test_the_copy_computes_the_route_to_the_bit(model, tmp_path, data):
    n = model.n_layer
    route = model.route(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n)))
    assume(model.architecture not in HYBRID or len({model.kinds[layer] for layer in route.layers}) > 1)
    copy = refmodel.load(routed(model, route, tmp_path / "r.gguf"))
    same_bits(copy.forward(TOKENS), model.forward(TOKENS, route))
    assert copy.kinds == [model.kinds[layer] for layer in route.layers]


def test_metadata_and_bytes_follow_their_blocks(model, tmp_path):
    route = model.route([1, 0, 2, 2])
    theirs = gguf.GGUFReader(routed(model, route, tmp_path / "r.gguf"))
    blocks = [*route.layers, *range(model.n_layer, model.n_layer + model.hp.n_nextn)]
    keys, arch = {name: f.contents() for name, f in theirs.fields.items()}, model.architecture
    assert keys[f"{arch}.block_count"] == len(blocks)
    if arch == "lfm2":
        assert keys["lfm2.attention.head_count_kv"] == [0 if model.hp.recurrent[b] else model.hp.n_head_kv for b in blocks]
    if arch in tiny.DELTA:
        assert keys[f"{arch}.attention.recurrent_layers"] == [model.hp.recurrent[b] for b in blocks]
        assert keys[f"{arch}.nextn_predict_layers"] == 1
    for t in theirs.tensors:
        name = t.name
        if name.startswith("blk."):
            _, position, rest = name.split(".", 2)
            name = f"blk.{blocks[int(position)]}.{rest}"
        same_bits(np.array(t.data).reshape(-1).view(np.uint8), model.file.tensors[name].data)


def with_fields(model, extra):
    """The model as if its file had these keys too."""
    fields = dict(model.file.metadata.fields) | extra
    return refmodel.Model(GgufFile(model.path, 3, Metadata(model.path, fields), model.file.tensors, model.file.parts))


def per_block(values):
    return field(gguf.GGUFValueType.ARRAY, values, gguf.GGUFValueType.UINT32)


def test_arrays_follow_their_blocks_and_the_copy_says_where_it_comes_from(model, tmp_path):
    arch, n_all = model.architecture, model.n_layer + model.hp.n_nextn
    widths = [model.hp.n_ff + i for i in range(n_all)]
    listed = with_fields(model, {f"{arch}.feed_forward_length": per_block(widths)})
    route = model.route([1, 0, 2, 2])
    theirs = gguf.GGUFReader(routed(listed, route, tmp_path / "r.gguf"))
    keys = {name: f.contents() for name, f in theirs.fields.items()}
    assert keys[f"{arch}.feed_forward_length"] == [widths[b] for b in [*route.layers, *range(model.n_layer, n_all)]]
    assert keys["refmodel.route"] == route.canonical
    assert keys["refmodel.map"] == list(route.layers)
    assert keys["refmodel.source.sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()


def test_four_sections_are_not_four_blocks(tmp_path):
    """rope.dimension_sections has four values in every file, one for each block only by chance."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=9, n_layer=4, interval=2))
    copy = refmodel.load(routed(model, model.route([3, 2, 1, 0, 1]), tmp_path / "r.gguf"))
    key = "qwen35.rope.dimension_sections"
    assert list(copy.file.metadata[key]) == list(model.file.metadata[key])


def test_a_per_block_array_of_another_length_stops_the_copy(model, tmp_path):
    unread = "attention.sliding_window_pattern" if model.hp.n_expert else "expert_feed_forward_length"
    extra = {f"{model.architecture}.{unread}": per_block([3] * (model.n_layer + model.hp.n_nextn + 1))}
    with pytest.raises(MetadataError, match=rf"{unread} has \d+ values; expected \d+ numbers, one for each block"):
        routed(with_fields(model, extra), model.route([1, 0, 2]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_cannot_run_is_not_written(model, tmp_path):
    with pytest.raises(RouteError, match=r"makes a file of \d+ blocks; llama\.cpp loads at most 512"):
        routed(model, model.route([0, 1, 2] * 171), tmp_path / "r.gguf")
    if model.architecture in HYBRID:
        for kind in set(model.kinds):
            with pytest.raises(RouteError, match=rf"keeps only {kind} blocks: llama\.cpp aborts"):
                routed(model, model.route([i for i, k in enumerate(model.kinds) if k == kind]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_never_replaces_its_source(model, tmp_path):
    (tmp_path / "m.gguf").write_bytes(before := model.path.read_bytes())
    mine = refmodel.load(tmp_path / "m.gguf")
    (tmp_path / "link.gguf").symlink_to("m.gguf")
    (tmp_path / "hard.gguf").hardlink_to(mine.path)
    for out in (mine.path, tmp_path / "link.gguf", tmp_path / "hard.gguf", tmp_path / ".." / tmp_path.name / "m.gguf"):
        with pytest.raises(FileError, match="is the file that is read"):
            routed(mine, mine.route([0, 1, 2, 1]), out)
        with pytest.raises(FileError, match="is the file that is read"):
            dequantized(mine.file, out)
    assert mine.path.read_bytes() == before


def test_an_array_of_unknown_meaning_stops_the_copy(model, tmp_path):
    key = f"{model.architecture}.something.per_block"
    odd = with_fields(model, {key: per_block(list(range(model.n_layer + model.hp.n_nextn)))})
    with pytest.raises(MetadataError, match=r"something\.per_block has one value for each"):
        routed(odd, model.route([1, 0, 2]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def split(model, folder):
    """The model's file in two parts."""
    tensors, parts = list(model.file.tensors.values()), [folder / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for no, (path, held) in enumerate(zip(parts, (tensors[:5], tensors[5:]), strict=True)):
        part = {
            "split.no": field(gguf.GGUFValueType.UINT16, no),
            "split.count": field(gguf.GGUFValueType.UINT16, 2),
            "split.tensors.count": field(gguf.GGUFValueType.INT32, len(tensors)),
        }
        write(path, (dict(model.file.metadata.fields) if no == 0 else {}) | part, held)
    return refmodel.load(parts[0])


def test_the_source_may_be_split(model, tmp_path):
    """Keys that describe the parts do not go into a file that is whole."""
    parted = split(model, tmp_path)
    route = parted.route([0, 1, 2])
    for copy, same in ((routed(parted, route, tmp_path / "r.gguf"), route), (dequantized(parted.file, tmp_path / "d.gguf"), None)):
        whole = refmodel.load(copy)
        assert not [key for key in whole.file.metadata if key.startswith("split.")]
        same_bits(whole.forward(TOKENS), model.forward(TOKENS, same))


def test_a_part_of_a_split_source_is_never_replaced_by_a_part_of_its_copy(model, tmp_path):
    parted = split(model, tmp_path)
    before = {path: path.read_bytes() for path in parted.file.parts}
    half = Limit(tensors=-(-len(parted.file.tensors) // 2))
    with pytest.raises(FileError, match="is the file that is read"):
        routed(parted, parted.route(), tmp_path / "m.gguf", limit=half)
    assert {path: path.read_bytes() for path in parted.file.parts} == before


@pytest.mark.parametrize(("arch", "limit"), diagonal(ARCHITECTURES, [Limit(tensors=7), Limit(size=9000), Limit(size=1)]))
def test_a_copy_in_parts_is_one_model_in_parts_no_larger_than_asked(arch, limit, tmp_path):
    model = made(arch, tmp_path)
    route = model.route([1, 0, 2, 2])
    first = routed(model, route, tmp_path / "r.gguf", limit=limit)
    copy = refmodel.load(first)
    assert first.name.startswith("r-00001-of-000")
    assert len(copy.file.parts) > 2
    for path in copy.file.parts:
        tensors = gguf.GGUFReader(path).tensors
        assert len(tensors) <= limit.tensors
        assert sum(t.n_bytes for t in tensors) <= limit.size or len(tensors) == 1
    same_bits(copy.forward(TOKENS), model.forward(TOKENS, route))
    assert copy.file.metadata["refmodel.source.sha256"] == model.file.sha256()
    assert {path.name for path in tmp_path.iterdir()} == {"m.gguf", *(path.name for path in copy.file.parts)}


def test_the_identity_keeps_the_order_of_tensors(model, tmp_path):
    copy = refmodel.load(routed(model, model.route(), tmp_path / "r.gguf"))
    assert list(copy.file.tensors) == list(model.file.tensors)


def test_kinds_that_are_numbers_follow_their_blocks_and_know_no_interval(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "lfm2", seed=9))
    route = model.route("blocks:1,3")
    copy = refmodel.load(routed(model, route, tmp_path / "r.gguf"))
    assert list(copy.file.metadata["lfm2.attention.head_count_kv"]) == [0, 0, 2, 0, 2, 0]
    assert copy.kinds == ["conv", "conv", "attention", "conv", "attention", "conv"]
    assert [(r.name, r.runs) for r in runners(model, Plan(route, 0, "blk."))] == [
        ("llama.cpp", True),
        ("Hugging Face transformers", True),
    ]
    with pytest.raises(RouteError, match=r"in lfm2 only attention\.head_count_kv says the kinds .*; leave --layout out"):
        routed(model, route, tmp_path / "i.gguf", layout="interval")


def test_the_interval_layout_is_refused_by_the_kinds_and_not_by_divisibility(tmp_path):
    """12 blocks of interval 4, two windows: 16 blocks that no interval makes; and 9 blocks that 3 makes."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=2, n_layer=12, interval=4))
    unaligned = model.route("blocks:1,3;9,11")
    assert len(unaligned.layers) % 4 == 0
    with pytest.raises(RouteError, match=r"no interval makes the kinds of route blocks:1,3;9,11 \(D D D D D A"):
        routed(model, unaligned, tmp_path / "r.gguf", layout="interval")
    assert not (tmp_path / "r.gguf").exists()
    thirds = model.route([0, 1, 3, 4, 5, 7, 8, 9, 11])
    copy = refmodel.load(routed(model, thirds, tmp_path / "t.gguf", layout="interval"))
    assert copy.file.metadata["qwen35.full_attention_interval"] == 3
    for words in ("blocks:4,8", "blocks:1,5", "blocks:3,7"):
        assert routed(model, model.route(words), tmp_path / "a.gguf", layout="interval")
    with pytest.raises(RouteError, match="expected list or interval"):
        routed(model, thirds, tmp_path / "r.gguf", layout="pairs")


@pytest.mark.parametrize("key", ["attention.recurrent_layers", "full_attention_interval"])
def test_a_hybrid_without_the_other_key_is_read_as_it_was(tmp_path, key):
    """A runtime that knows only the interval, and one that knows only the list, read the same kinds from --layout interval."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=2, n_layer=6, interval=3, n_nextn=1))
    file = read(routed(model, model.route("blocks:1,4"), tmp_path / "r.gguf", layout="interval"))
    fields = {k: v for k, v in file.metadata.fields.items() if k != f"qwen35.{key}"}
    copy = refmodel.load(write(tmp_path / "one.gguf", fields, file.tensors.values()))
    assert copy.kinds == [model.kinds[layer] for layer in model.route("blocks:1,4").layers]


def test_a_number_that_goes_by_place_stops_a_route_and_not_the_identity(model, tmp_path):
    extra = {f"{model.architecture}.leading_dense_block_count": field(gguf.GGUFValueType.UINT32, 1)}
    with pytest.raises(MetadataError, match="leading_dense_block_count says what a block is by its place"):
        routed(with_fields(model, extra), model.route([1, 0, 2]), tmp_path / "r.gguf")
    assert routed(with_fields(model, extra), model.route(), tmp_path / "r.gguf")


ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "interrupted": ("os.kill(os.getpid(), signal.SIGINT)", 130),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", 143),
    "disk full": ("resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))", 2),
}


@pytest.mark.parametrize(("end", "parts", "there"), diagonal(ENDS, [0, 9], [False, True]))
def test_whatever_ends_the_copying_leaves_no_half_file(end, parts, there, tmp_path):
    """In a process of its own: at the twelfth tensor it is killed, interrupted, or may write no more."""
    source = tiny.build(tmp_path / "m.gguf", "qwen35", seed=2)
    out = tmp_path / ("r-00001-of-00013.gguf" if parts else "r.gguf")
    if there:
        out.write_bytes(b"an older file")
    before = source.read_bytes()
    act, status = ENDS[end]
    program = f"""
import os, resource, signal, sys
from pathlib import Path
from refmodel import cli
from refmodel.gguf.writer import Limit
import refmodel.surgery.make_copy as operate
signal.signal(signal.SIGINT, signal.default_int_handler)
plain, count = operate.routed, 0
def act(copied):
    global count
    count += 1
    if count == 12:
        {act}
operate.routed = lambda model, route, out, layout, limit, seen: plain(model, route, out, layout, limit, act)
sys.argv = ["refmodel", "surgery", {str(source)!r}, "--route", "blocks:1,4", "-o", {str(tmp_path / "r.gguf")!r}]
sys.argv += ["--split-max-tensors", "{parts}"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == (end == "disk full")
    assert end != "disk full" or f"{out.name}: cannot be written: File too large; no part of it was left" in done.stderr
    assert source.read_bytes() == before
    left = {path.name for path in tmp_path.iterdir()} - {"m.gguf"}
    assert {name for name in left if not name.endswith(".partial")} == ({out.name} if there else set())
    assert end == "killed" or not [name for name in left if name.endswith(".partial")]
    if there:
        assert out.read_bytes() == b"an older file"


def test_a_target_that_is_no_file_is_left_alone(model, tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    os.mkfifo(tmp_path / "pipe.gguf")
    for name, message in (("folder.gguf", "is a folder"), ("pipe.gguf", "not a regular file"), ("no/r.gguf", "does not exist")):
        with pytest.raises(FileError, match=message):
            routed(model, model.route([0, 1, 2]), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.gguf", "pipe.gguf"]


def test_a_copy_has_the_permissions_that_any_new_file_has(model, tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    out = routed(model, model.route([0, 1, 2]), tmp_path / "r.gguf")
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("words", "size"), [("", inf), ("5", 5), ("5k", 5000), ("3M", 3_000_000), ("2G", 2_000_000_000)])
def test_sizes_of_parts_are_decimal(words, size):
    assert Limit.of(words, 0) == Limit(size, inf)


@pytest.mark.parametrize("words", ["0", "-1", "1.5G", "4T", "G", "x"])
def test_a_size_that_is_none_is_an_error(words):
    with pytest.raises(FileError, match="--split-max-size"):
        Limit.of(words, 0)


def test_surgery_starts_without_numba_torch_and_the_tokenizer(tmp_path):
    source = tiny.build(tmp_path / "m.gguf", "qwen35", seed=2)
    words = ["surgery", str(source), "--route", "blocks:1,4", "-o", str(tmp_path / "r.gguf")]
    program = f"import sys; from refmodel import cli; sys.argv[1:] = {words}; cli.app(standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numba", "llvmlite", "torch", "transformers"} & set(done.stdout.split())
    assert (tmp_path / "r.gguf").exists()


def test_tensors_of_a_copy_stand_as_in_the_source():
    """Those of the whole model where they stood, all blocks where the first block stood, each block's in its own order."""
    names = ["token_embd.weight", "blk.1.b", "blk.1.a", "output_norm.weight", "blk.0.a", "blk.0.b", "blk.2.nextn", "output.weight"]
    plan = Plan(Route.of([1, 0, 1], 2), behind=1, prefix="blk.")
    assert list(plan.origins(names).items()) == [
        ("token_embd.weight", "token_embd.weight"),
        ("blk.0.b", "blk.1.b"),
        ("blk.0.a", "blk.1.a"),
        ("blk.1.a", "blk.0.a"),
        ("blk.1.b", "blk.0.b"),
        ("blk.2.b", "blk.1.b"),
        ("blk.2.a", "blk.1.a"),
        ("blk.3.nextn", "blk.2.nextn"),
        ("output_norm.weight", "output_norm.weight"),
        ("output.weight", "output.weight"),
    ]
    assert list(plan.origins(["output.weight"])) == ["output.weight"]
    assert list(plan.origins(["blk.0.a", "blkx.0.a", "blk.7", "blk..a"])) == ["blk.1.a", "blkx.0.a", "blk.7", "blk..a"]


def test_a_list_of_a_copy_follows_its_blocks():
    plan = Plan(Route.of([1, 0, 1], 2), behind=1, prefix="blk.")
    assert plan.blocks == (1, 0, 1, 2)
    assert plan.follow(["a", "b", "c"]) == ["b", "a", "b", "c"]
    assert plan.follow(["a", "b"]) == ["b", "a", "b"]
    with pytest.raises(AssertionError, match="one value for each block"):
        plan.follow(["a", "b", "c", "d"])
