"""Routes from hashes alone; the readings of names; who can run a route before it is written."""

from dataclasses import replace

import folders
import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from test_living import WIDE, changed, in_type, matrices

import refmodel
from refmodel.arch.kinds import interval_of
from refmodel.compare.dequantized import dequantized
from refmodel.gguf.writer import write
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.surgery.gguf import plan_of, routed
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.recover import claim, claims_of_name, recover
from refmodel.surgery.runtimes import cost, runners
from refmodel.surgery.verify import Options, foreseen, recovered, verify


def hashes(blocks, prefix="blk."):
    """Tensor name -> a stand-in for its hash: two tensors a block, `blocks` the source block of each or a pair of them."""
    pairs = [block if isinstance(block, tuple) else (block, block) for block in blocks]
    return {f"{prefix}{p}.{name}": f"{name}{b}" for p, pair in enumerate(pairs) for name, b in zip("ab", pair)} | {"out": "x"}


SOURCE = hashes([0, 1, 2, 3])


def test_each_block_is_found_by_its_tensors():
    found = recover(hashes([0, 1, 2, 1, 2, 3]), SOURCE, ("blk.", "blk."), 4, 0)
    assert found.exact
    assert found.route.canonical == "blocks:1,3"
    assert [m.sources for m in found.matches] == [[0], [1], [2], [1], [2], [3]]


def test_a_block_without_all_tensors_of_its_source_is_not_that_block():
    copy = {name: digest for name, digest in hashes([0, 1, 2, 3]).items() if name != "blk.2.b"}
    found = recover(copy, SOURCE, ("blk.", "blk."), 4, 0)
    assert [m.sources for m in found.matches] == [[0], [1], [], [3]]
    assert (found.matches[2].nearest, found.matches[2].common, found.matches[2].total) == (2, 1, 1)
    assert not found.exact
    found = recover(hashes([0, 1, 2, 3]) | {"blk.2.c": "more"}, SOURCE, ("blk.", "blk."), 4, 0)
    assert [m.sources for m in found.matches] == [[0], [1], [], [3]]


def test_equal_blocks_of_the_source_follow_the_block_before():
    """A source that is a routed file itself: blocks 1 and 3 are equal, 2 and 4."""
    source = hashes([0, 1, 2, 1, 2, 3])
    found = recover(hashes([0, 1, 2, 1, 2, 1, 2, 3]), source, ("blk.", "blk."), 6, 0)
    assert found.exact
    assert found.matches[1].sources == [1, 3]
    assert found.route.layers == (0, 1, 2, 3, 4, 1, 2, 5)
    assert found.fits(found.route)
    assert found.fits(refmodel.Route.of([0, 1, 2, 1, 2, 3, 4, 5], 6))
    assert not found.fits(refmodel.Route.of([0, 1, 2, 2, 2, 3, 4, 5], 6))


def test_a_block_with_a_foreign_tensor_is_near_to_one_and_whole_of_none():
    found = recover(hashes([0, (1, 9), 2, 3]), SOURCE, ("blk.", "blk."), 4, 0)
    assert not found.exact
    assert found.route.layers == (0, 1, 2, 3)
    assert found.matches[1].describe() == "block 1 has 1 of 2 tensors of source block 1, and no block has all"


def test_a_block_between_two_or_of_another_model_is_none():
    for odd in ((1, 2), 9):
        found = recover(hashes([0, odd, 2, 3]), SOURCE, ("blk.", "blk."), 4, 0)
        assert found.route is None
        assert "is no block of the source" in found.matches[1].describe()


def test_a_prediction_block_is_no_part_of_the_route():
    found = recover(hashes([0, 0, 1, 2]), hashes([0, 1, 2]), ("blk.", "blk."), 2, 1)
    assert found.route.layers == (0, 0, 1)
    assert not recover(hashes([0, 2, 1, 2]), hashes([0, 1, 2]), ("blk.", "blk."), 2, 1).exact


@pytest.mark.parametrize(
    ("name", "layers", "reading"),
    [
        ("Qwen3.5-4B-rys_27-30-UD-Q4_K_XL.gguf", [*range(31), *range(27, 32)], "with its end included blocks:27,31: right"),
        ("Qwen3-0.6B-RYS-10-13.gguf", [*range(13), *range(10, 32)], "half-open blocks:10,13: right"),
        ("rys_28-31_eq.gguf", [*range(32), *range(28, 32)], "with its end included blocks:28,32: right"),
        ("x-rys_12_14.gguf", [*range(20), *range(10, 32)], "but the tensors are blocks:10,20"),
    ],
)
def test_names_are_read_both_ways_and_the_hashes_decide(name, layers, reading):
    source = hashes(range(32))
    found = recover(hashes(layers), source, ("blk.", "blk."), 32, 0)
    (said,) = claims_of_name("the file's name", name, 32)
    assert reading in said.verdict(found)[1]


def test_a_name_beyond_the_model_and_a_key_of_another_kind_are_no_routes():
    found = recover(SOURCE, SOURCE, ("blk.", "blk."), 4, 0)
    (said,) = claims_of_name("name", "rys_3_90", 4)
    none = "no route of 4 blocks"
    sentence = f"name says rys_3_90 (with its end included {none}; half-open {none}), but the tensors are blocks:0,0"
    assert said.verdict(found) == (False, sentence)
    assert not claim("key", 7, 4).verdict(found)[0]
    assert claims_of_name("name", "Qwen3-4B-Instruct-2507.gguf", 4) == []


def test_a_requantized_copy_is_known_by_what_was_left_alone(golden, tmp_path):
    """Other matrices of the same values, the same float32 norms: the route is known, though not by hashes only."""
    model = refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")
    route = model.route("blocks:1,3")
    copy = refmodel.load(routed(model, route, tmp_path / "r.gguf"))
    found = recovered(dequantized(copy.file, tmp_path / "d.gguf"), model.path)
    assert found.recovery.route.layers == route.layers
    assert not found.recovery.exact
    assert found.status == 0


def test_a_lying_key_is_told(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", seed=4, n_layer=4))
    copy = refmodel.load(routed(model, model.route("blocks:1,3"), tmp_path / "rys_1-2.gguf"))
    told = routed(model, model.route("blocks:0,3"), tmp_path / "o.gguf")
    fields = dict(copy.file.metadata.fields) | {"refmodel.route": refmodel.load(told).file.metadata.fields["refmodel.route"]}
    found = recovered(write(tmp_path / "lie.gguf", fields, copy.file.tensors.values()), model.path)
    assert found.status == 1
    assert found.lies == ["refmodel.route says blocks:0,3 (that is blocks:0,3), but the tensors are blocks:1,3"]
    assert found.as_json()["route"] == "blocks:1,3"
    assert recovered(copy.path, model.path).status == 0


@pytest.mark.parametrize(
    ("kinds", "preferred", "interval"),
    [
        ("DDDADDDA", 4, 4),
        ("DDDADDDADD", 4, 4),  # 10 blocks: nothing has to be divisible
        ("DDADDA", 4, 3),
        ("DADADADA", 4, 2),
        ("DDDADADA", 4, None),
        ("AAAA", 4, 1),
        ("DDDAD", 0, 4),
        ("A", 4, 1),
    ],
)
def test_an_interval_is_found_from_the_kinds(kinds, preferred, interval):
    assert interval_of(list(kinds), "D", preferred) == interval


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("h") / "m.gguf", "qwen35", seed=2, n_layer=12, interval=4))


@pytest.mark.parametrize(
    ("words", "with_list", "by_interval"),
    [
        ("blocks:4,8", True, True),
        ("blocks:3,7", True, True),
        ("blocks:1,3", True, False),
        ("blocks:1,3;9,11", True, False),  # 16 blocks, divisible by 4, and yet
        ("layers:0..8", True, True),  # 9 blocks
        ("layers:0,1,2", False, None),
    ],
)
def test_who_runs_a_route_is_known_from_the_kinds(hybrid, words, with_list, by_interval):
    found = runners(hybrid, plan_of(hybrid, hybrid.route(words)))
    assert found[0].name.startswith("llama.cpp")
    assert found[0].runs == with_list
    assert [r.runs for r in found if "without the list" in r.name] == ([] if by_interval is None else [by_interval])
    if by_interval is None:
        assert "llama.cpp aborts" in found[0].why


def test_too_many_blocks_and_models_of_one_kind(tmp_path):
    dense = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen3", seed=2))
    assert {r.runs for r in runners(dense, plan_of(dense, dense.route([2, 1, 0])))} == {True}
    assert not runners(dense, plan_of(dense, dense.route([0] * 513)))[0].runs


def test_the_cost_is_counted_by_block(hybrid):
    route = hybrid.route("layers:0..11,3,0")
    found = cost(hybrid, plan_of(hybrid, route))
    assert (found["extra_blocks"], found["extra_percent"]) == (2, 16.67)
    size = {i: sum(t.data.size for name, t in hybrid.file.tensors.items() if name.startswith(f"blk.{i}.")) for i in (0, 3)}
    assert found["weights_bytes"]["copy"] - found["weights_bytes"]["source"] == size[0] + size[3]
    hp = hybrid.hp
    assert found["cache_bytes_per_token"] == {
        "source": 3 * 4 * hp.n_head_kv * hp.head_dim,
        "copy": 4 * 4 * hp.n_head_kv * hp.head_dim,
    }
    one = 4 * ((hp.d_conv - 1) * hp.conv_dim + hp.n_v_head * hp.d_state**2)
    assert found["recurrent_state_bytes"] == {"source": 9 * one, "copy": 10 * one}
    assert foreseen(hybrid.path, "blocks:1,3").keys() >= {"runners", "cost", "seams", "map"}


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0, Q.F16])
def test_the_route_of_a_copy_that_was_quantized_afterwards(kind, tmp_path):
    """Each block is known by the tensors that kept their type; the others must be its own within the error of their type."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", seed=4, **WIDE))
    copy = routed(model, model.route("blocks:1,3"), tmp_path / "c.gguf")
    packed = {name: in_type(t, kind) for name, t in matrices(copy).items()}
    found = recovered(changed(copy, tmp_path / "q.gguf", packed), model.path)
    assert (found.words, found.status, found.recovery.exact) == ("blocks:1,3", 0, False)
    assert any("tensors are in other types than the source's" in line for line in found.lines)
    assert not [line for line in found.lines if line.startswith("!")]
    harmed = packed | {"blk.3.ffn_up.weight": replace(packed["blk.0.ffn_up.weight"], name="blk.3.ffn_up.weight")}
    found = recovered(changed(copy, tmp_path / "o.gguf", harmed), model.path)
    assert (found.words, found.status) == ("blocks:1,3", 1)
    assert [line for line in found.lines if line.startswith("! block 3 has 2 of 9 tensors")]


def test_blocks_whose_norms_have_no_weights_are_known_by_rows(tmp_path):
    """As in OLMo: no vector is left to know a block by when every matrix was saved in another type."""
    source = folders.build(tmp_path / "s", "olmo", kind="F32", tie_word_embeddings=True)
    without = lambda t: [t.pop(name) for name in list(t) if "layernorm" in name]
    folders.tensors(without, "F32")(source)
    copy = routed_folder(read_folder(source), Route.of("blocks:1,4", 7), tmp_path / "c")
    for kind in ("F16", "BF16"):
        folders.tensors(lambda t: None, kind)(copy)
        assert recovered(copy, source).recovery.route == Route.of("blocks:1,4", 7)
        report = verify(copy, source, options=Options(forward=False))
        assert (report.verdict, report.findings) == ("proved except forward", [])
    folders.tensors(lambda t: t.update({n: t[n.replace("4.", "2.", 1)] for n in t if ".layers.4." in n}), "F16")(copy)
    assert verify(copy, source, "blocks:1,4", Options(forward=False)).findings[0][1].key == "position 4"
