"""Routed copies: gguf-py judges the file, the forward pass judges what it computes."""

import gguf
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from near import same_bits

import refmodel
from refmodel.errors import MetadataError
from refmodel.gguf.metadata import Metadata
from refmodel.gguf.reader import GgufFile
from refmodel.gguf.writer import field, write
from refmodel.surgery import HYBRID, routed

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
    if model.architecture in HYBRID and len({model.kinds[layer] for layer in route.layers}) == 1:
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
    if arch in HYBRID:
        assert keys[f"{arch}.attention.recurrent_layers"] == [model.hp.recurrent[b] for b in blocks]
        assert keys[f"{arch}.nextn_predict_layers"] == 1
    for t in theirs.tensors:
        name = t.name
        if name.startswith("blk."):
            _, position, rest = name.split(".", 2)
            name = f"blk.{blocks[int(position)]}.{rest}"
        same_bits(np.array(t.data).reshape(-1).view(np.uint8), model.file.tensors[name].data)


def test_an_array_of_unknown_meaning_stops_the_copy(model, tmp_path):
    n_all = model.n_layer + model.hp.n_nextn
    key = f"{model.architecture}.something.per_block"
    extra = {key: field(gguf.GGUFValueType.ARRAY, list(range(n_all)), gguf.GGUFValueType.UINT32)}
    fields = dict(model.file.metadata.fields) | extra
    file = GgufFile(model.path, 3, Metadata(model.path, fields), model.file.tensors, model.file.parts)
    with pytest.raises(MetadataError, match=r"something\.per_block has one value for each"):
        routed(refmodel.Model(file), model.route([1, 0, 2]), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []


def test_the_source_may_be_split(model, tmp_path):
    """Keys that describe the parts do not go into a file that is whole."""
    fields = dict(model.file.metadata.fields) | {"split.count": field(gguf.GGUFValueType.UINT16, 1)}
    write(tmp_path / "m.gguf", fields, model.file.tensors.values())
    whole = refmodel.load(tmp_path / "m.gguf")
    copy = refmodel.load(routed(whole, whole.route([0, 1, 2]), tmp_path / "r.gguf"))
    assert not [key for key in copy.file.metadata if key.startswith("split.")]
