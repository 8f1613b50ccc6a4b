"""Copies with blocks of two models: each block is found in its source, and what the sources do not share is named."""

import json
from dataclasses import replace

import folders
import pytest
import tiny
from gguf import GGUFValueType as V
from test_living import changed
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import MetadataError, RouteError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field, write
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.surgery.gguf import routed
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, recovered, verify

QUICK = Options(forward=False)
MAP = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (0, 3)]  # the source of each block, and its number there
WORDS = "a.gguf 0..1, b.gguf 1..3, a.gguf 3"


def sources(folder, arch, **shape):
    """Two models of one shape with other weights."""
    return [tiny.build(folder / f"{name}.gguf", arch, seed=seed, n_layer=4, **shape) for name, seed in (("a", 1), ("b", 2))]


def passthrough(paths, out, places, head=0):
    """A file of these blocks, as another tool writes it: the keys of the first source, no word of where it comes from."""
    models = [refmodel.load(path) for path in paths]
    files, arch = [model.file for model in models], models[0].architecture
    tensors = [t for name, t in files[head].tensors.items() if not name.startswith("blk.")]
    for position, (number, block) in enumerate(places):
        own = f"blk.{block}."
        tensors += [
            replace(t, name=f"blk.{position}.{n.removeprefix(own)}") for n, t in files[number].tensors.items() if n.startswith(own)
        ]
    fields = dict(files[0].metadata.fields) | {f"{arch}.block_count": field(V.UINT32, len(places))}
    if how := models[0].arch.FACTS.kinds:
        kinds = [models[number].kinds[block] == how.kind for number, block in places]
        fields[f"{arch}.{how.listed}"] = field(V.ARRAY, kinds, V.BOOL)
    return write(out, fields, tensors)


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("llama", {}),
        ("qwen35", {"recurrent": [True, False, True, False]}),
        ("gemma3", {}),
    ],
)
def test_the_blocks_of_two_files_are_found(arch, shape, tmp_path):
    a, b = sources(tmp_path, arch, **shape)
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP)
    report = verify(copy, a, others=[b])
    assert (report.verdict, report.findings) == ("recovered", [])
    assert report.route == report.recovered == WORDS
    assert report.blocks == [(str([a, b][number]), block) for number, block in MAP]
    assert not [note for note in report.notes if note.endswith("?")]  # the first source's last block is an end
    assert "source blocks 0 to 3 are those of a.gguf, 4 to 7 are those of b.gguf" in report.notes
    found = recovered(copy, a, [b])
    assert (found.words, found.status) == (WORDS, 0)
    assert found.as_json()["places"] == MAP
    assert recovered(copy, a).status == 1


def test_a_head_of_the_second_source_is_known(tmp_path):
    a, b = sources(tmp_path, "llama")
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP, head=1)
    assert verify(copy, a, options=QUICK, others=[b]).verdict == "recovered"
    only_first = verify(passthrough([a, b], tmp_path / "d.gguf", [(0, 0), (0, 1)], head=1), a, options=QUICK)
    assert {f.key for _, f in only_first.findings} == {"token_embd.weight", "output_norm.weight", "output.weight"}


def test_a_tensor_of_the_other_source_is_named(tmp_path):
    a, b = sources(tmp_path, "llama")
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP)
    odd = replace(read(b).tensors["blk.0.ffn_up.weight"], name="blk.0.ffn_up.weight")
    report = verify(changed(copy, tmp_path / "o.gguf", {odd.name: odd}), a, options=QUICK, others=[b])
    assert report.verdict == "wrong"
    assert "blk.0.ffn_up.weight has the bytes of blk.4.ffn_up.weight; it should have those of blk.0.ffn_up.weight" in [
        f"{f.where} {f.what}" for _, f in report.findings
    ]


def test_stale_kinds_are_named(tmp_path):
    a, b = sources(tmp_path, "qwen35", recurrent=[True, False, True, False])
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP)
    kinds = field(V.ARRAY, [True, False] * 3, V.BOOL)
    report = verify(
        changed(copy, tmp_path / "o.gguf", **{"qwen35.attention.recurrent_layers": kinds}), a, options=QUICK, others=[b]
    )
    assert report.findings[0][1].where == "qwen35.attention.recurrent_layers[2]"


def test_sources_that_no_copy_can_join_are_named(tmp_path):
    a, b = sources(tmp_path, "llama")
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP)
    other = changed(b, tmp_path / "base.gguf", **{"llama.rope.freq_base": field(V.FLOAT32, 5e5)})
    with pytest.raises(MetadataError, match=r"llama\.rope\.freq_base is not that of"):
        verify(copy, a, others=[other])
    with pytest.raises(MetadataError, match=r"is a qwen3, .* a llama"):
        verify(copy, a, others=[tiny.build(tmp_path / "q.gguf", "qwen3", seed=1)])
    with pytest.raises(RouteError, match="takes no --route"):
        verify(copy, a, "identity", others=[b])
    large = tiny.build(tmp_path / "g.gguf", "gemma3", seed=1, n_layer=62)
    with pytest.raises(MetadataError, match="known by its number of blocks"):
        verify(large, large, others=[large])


def test_sources_that_say_the_same_in_other_words_are_joined(tmp_path):
    a, b = sources(tmp_path, "llama")
    copy = passthrough([a, b], tmp_path / "c.gguf", MAP)
    same = {"llama.attention.causal": field(V.BOOL, True), "llama.rope.scaling.type": field(V.STRING, "none")}
    same |= {"general.name": field(V.STRING, "B"), "llama.context_length": field(V.UINT64, 77)}
    report = verify(copy, a, others=[changed(b, tmp_path / "same.gguf", **same)])
    assert (report.verdict, report.findings) == ("recovered", [])
    scaled = {"llama.rope.scaling.type": field(V.STRING, "linear"), "llama.rope.scaling.factor": field(V.FLOAT32, 2.0)}
    with pytest.raises(MetadataError, match=r"llama\.rope\.scaling\.factor is not that of"):
        verify(copy, a, others=[changed(b, tmp_path / "other.gguf", **scaled)])
    one, two = folder_pair(tmp_path, "qwen3")
    copy = folder_passthrough([one, two], tmp_path / "c", MAP)
    folders.config(attention_bias=False, torch_dtype="bfloat16", architectures=["Qwen3ForCausalLM"], pretraining_tp=1)(two)
    assert verify(copy, one, others=[two]).findings == []
    folders.config(torch_dtype="float16")(two)
    with pytest.raises(MetadataError, match=r"dtype is 'float16', in .* 'bfloat16'; no copy computes layers of both"):
        verify(copy, one, others=[two])


def folder_pair(folder, model_type, **keys):
    paths = [folders.build(folder / name, model_type, n_layer=4, tie_word_embeddings=True, **keys) for name in ("a", "b")]
    folders.write_tensors(paths[1] / "model.safetensors", folders.values(4, seed=9))
    return paths


def folder_passthrough(paths, out, places, **keys):
    held = [{name: folders.floats(t) for name, t in folders.read_folder(path).tensors.items()} for path in paths]
    tensors = {name: x for name, x in held[0].items() if ".layers." not in name}
    for position, (number, block) in enumerate(places):
        own = f"{folders.PREFIX}{block}."
        tensors |= {f"{folders.PREFIX}{position}.{n.removeprefix(own)}": x for n, x in held[number].items() if n.startswith(own)}
    return folders.write(
        out, json.loads((paths[0] / "config.json").read_text()) | {"num_hidden_layers": len(places)} | keys, tensors
    )


FULL, SLIDING = "full_attention", "sliding_attention"


def test_the_layers_of_two_folders_are_found_and_their_kinds_follow(tmp_path):
    a, b = folder_pair(tmp_path, "gemma2", sliding_window=4)
    kinds = [[SLIDING, FULL][block % 2] for _, block in MAP]
    copy = folder_passthrough([a, b], tmp_path / "c", MAP, layer_types=kinds)
    report = verify(copy, a, others=[b])
    assert (report.verdict, report.route, report.findings) == ("recovered", "a 0..1, b 1..3, a 3", [])
    stale = folder_passthrough([a, b], tmp_path / "d", MAP)
    assert verify(stale, a, others=[b]).findings[0][1].where == "config.json: layer_types[2]"
    folders.config(hidden_act="gelu")(b)
    with pytest.raises(MetadataError, match=r"hidden_act is 'gelu', in .* None; no copy computes layers of both"):
        verify(copy, a, others=[b])


def test_a_fact_that_only_a_place_says_cannot_be_joined(tmp_path):
    a, b = folder_pair(tmp_path, "glm4_moe", first_k_dense_replace=1)
    copy = folder_passthrough([a, b], tmp_path / "c", MAP)
    with pytest.raises(MetadataError, match="first_k_dense_replace says what a layer is by its place"):
        verify(copy, a, others=[b])


def test_the_commands_take_several_sources(tmp_path):
    a, b = sources(tmp_path, "llama")
    copy = str(passthrough([a, b], tmp_path / "c.gguf", MAP))
    run = CliRunner().invoke
    both = ["--source", str(a), "--source", str(b)]
    shown = run(app, ["route", "--recover", copy, *both])
    assert shown.exit_code == 0
    assert WORDS in shown.output
    proof = run(app, ["verify", copy, *both, "--no-forward"])
    assert proof.exit_code == 0
    assert f"RECOVERED: the copy is the source under {WORDS}" in proof.output


def test_what_looks_like_an_accident_is_so_in_its_own_source(tmp_path):
    a, b = sources(tmp_path, "llama")
    places = {
        "it ends with block 2, the source with 3": [(1, 0), (1, 1), (0, 2)],
        "it begins with block 5": [(1, 1), (1, 2), (1, 3)],
        "blocks 5 and 6 have changed places": [(1, 0), (1, 2), (1, 1), (1, 3)],
        "": [(0, 0), (1, 1), (0, 2), (1, 3)],
    }
    for remark, some in places.items():
        report = verify(passthrough([a, b], tmp_path / "c.gguf", some), a, options=QUICK, others=[b])
        found = [note for note in report.notes if note.endswith("?")]
        assert any(remark in note for note in found) if remark else not found, (remark, found)


HYBRID = {"recurrent": [True, False, True, False], "n_nextn": 1}


@pytest.mark.parametrize(("arch", "shape"), [("llama", {}), ("qwen35", HYBRID)])
def test_a_copy_of_one_of_several_sources_says_its_route_in_that_one(arch, shape, tmp_path):
    paths = sources(tmp_path, arch, **shape)
    for path, order in ((path, order) for path in paths for order in (paths, paths[::-1])):
        model = refmodel.load(path)
        copy = routed(model, model.route("blocks:1,3"), tmp_path / "c.gguf")
        report = verify(copy, order[0], options=QUICK, others=order[1:])
        assert (report.verdict, report.findings) == ("proved except forward", [])
        assert report.route == f"{path.name} 0..2, {path.name} 1..3"
        assert recovered(copy, order[0], order[1:]).status == 0
        for key, value in (("refmodel.route", field(V.STRING, "blocks:0,2")), ("refmodel.source.block_count", field(V.UINT32, 7))):
            odd = verify(changed(copy, tmp_path / "o.gguf", **{key: value}), order[0], options=QUICK, others=order[1:])
            assert [finding.key for _, finding in odd.findings] == [key]


def test_a_folder_of_one_of_several_sources_says_its_route_in_that_one(tmp_path):
    a, b = (folders.build(tmp_path / name, "llama", n_layer=4, hidden_size=128, num_attention_heads=4) for name in "ab")
    folders.tensors(lambda t: t.update({name: 1.5 * x for name, x in t.items() if "layers" in name}))(b)
    for path, order in ((path, order) for path in (a, b) for order in ((a, b), (b, a))):
        copy = routed_folder(read_folder(path), Route.of("blocks:1,3", 4), tmp_path / f"{path.name}{order[0].name}")
        report = verify(copy, order[0], options=QUICK, others=order[1:])
        assert (report.verdict, report.findings) == ("proved except forward", [])
        folders.config(rys_relayer={"spec": "blocks:0,2", "source_num_layers": 5})(copy)
        odd = verify(copy, order[0], options=QUICK, others=order[1:])
        assert {finding.key for _, finding in odd.findings} == {"rys_relayer.spec", "rys_relayer.source_num_layers"}
