"""Routed copies: gguf-py judges the file, the forward pass judges what it computes."""

import hashlib

import gguf
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from near import same_bits

import refmodel
from refmodel.compat import KINDS
from refmodel.errors import FileError, MetadataError, RouteError
from refmodel.gguf.metadata import Metadata
from refmodel.gguf.reader import GgufFile
from refmodel.gguf.writer import field, write
from refmodel.surgery import dequantized, routed

TOKENS = [7, 3, 250, 9, 9]


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen35"])
def model(request, tmp_path_factory):
    shape = {"n_nextn": 1} if request.param == "qwen35" else {}
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("s") / "m.gguf", request.param, seed=9, **shape))


@settings(max_examples=15)
@given(data=st.data())
def test_the_copy_computes_the_route_to_the_bit(model, tmp_path, data):
    n = model.n_layer
    route = model.route(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n)))
    if model.architecture in KINDS and len({model.kinds[layer] for layer in route.layers}) == 1:
        return
    copy = refmodel.load(routed(model, route, tmp_path / "r.gguf"))
    same_bits(copy.forward(TOKENS), model.forward(TOKENS, route))
    assert copy.kinds == [model.kinds[layer] for layer in route.layers]


def test_metadata_and_bytes_follow_their_blocks(model, tmp_path):
    route = model.route([1, 0, 2, 2])
    theirs = gguf.GGUFReader(routed(model, route, tmp_path / "r.gguf"))
    blocks = [*route.layers, *range(model.n_layer, model.n_layer + model.hp.n_nextn)]
    keys, arch = {name: f.contents() for name, f in theirs.fields.items()}, model.architecture
    assert keys[f"{arch}.block_count"] == len(blocks)
    if arch in KINDS:
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
    extra = {f"{model.architecture}.expert_feed_forward_length": per_block([3] * (model.n_layer + model.hp.n_nextn + 1))}
    with pytest.raises(MetadataError, match=r"expert_feed_forward_length has \d+ values; expected \d+ numbers, one for each block"):
        routed(with_fields(model, extra), model.route([1, 0, 2]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_cannot_run_is_not_written(model, tmp_path):
    with pytest.raises(RouteError, match=r"makes a file of \d+ blocks; llama\.cpp loads at most 512"):
        routed(model, model.route([0, 1, 2] * 171), tmp_path / "r.gguf")
    if model.architecture in KINDS:
        for kind in set(model.kinds):
            with pytest.raises(RouteError, match=rf"keeps only {kind} blocks: llama\.cpp aborts"):
                routed(model, model.route([i for i, k in enumerate(model.kinds) if k == kind]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_never_replaces_its_source(model, tmp_path):
    (tmp_path / "m.gguf").write_bytes(before := model.path.read_bytes())
    mine = refmodel.load(tmp_path / "m.gguf")
    (tmp_path / "link.gguf").symlink_to("m.gguf")
    for out in (mine.path, tmp_path / "link.gguf", tmp_path / ".." / tmp_path.name / "m.gguf"):
        with pytest.raises(FileError, match="is the file being copied"):
            routed(mine, mine.route([0, 1, 2, 1]), out)
        with pytest.raises(FileError, match="is the file being copied"):
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
