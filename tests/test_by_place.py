"""Facts that hang on a block's place or on their number: a copy says them, or it is refused before anything is written."""

import json
import re

import folders
import pytest
import tiny

import refmodel
from refmodel.errors import MetadataError, RouteError
from refmodel.hf.by_place.folders import FACTS
from refmodel.hf.by_place.llamacpp import conversion, miscounted
from refmodel.hf.by_place.model_types import ALIKE, REFUSED, model_type
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.surgery import gguf as surgery_gguf
from refmodel.surgery import hf_write
from refmodel.surgery.copy_map import folder_plan
from refmodel.surgery.gguf import plan_of, routed
from refmodel.surgery.hf_config import not_run
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.runtimes import runners
from refmodel.surgery.verify import Options, foreseen, verify
from refmodel.surgery.verify.report import METADATA

QUICK = Options(forward=False)
SKIP_AND_REPEAT = "layers:0..59,59,61"  # 62 positions


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Gemma 3 with the 27B's number of blocks; embedding length / heads is 3, a head has 10."""
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("g") / "g27.gguf", "gemma3", seed=1, n_layer=62))


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("g") / "g12.gguf", "gemma3", seed=1, n_layer=48))


@pytest.mark.parametrize(("name", "words"), [("large", "blocks:30,33"), ("smaller", "blocks:30,44"), ("large", "layers:0..60")])
def test_a_copy_of_gemma3_that_loses_or_gets_the_27b_scale_is_refused(name, words, request, tmp_path):
    model = request.getfixturevalue(name)
    with pytest.raises(
        RouteError, match=r"by 62 blocks only that queries are scaled .* the copy would have \d+ and would (lose|get) that"
    ):
        routed(model, model.route(words), tmp_path / "r.gguf")
    assert list(tmp_path.iterdir()) == []
    found = foreseen(model.path, words)["runners"]
    assert [(runner["name"], runner["runs"]) for runner in found] == [("llama.cpp", False), ("refmodel", True)]
    assert "62 blocks only" in found[0]["why"]


def test_as_many_blocks_as_before_keep_the_scale(large, smaller, tmp_path):
    copy = routed(large, large.route(SKIP_AND_REPEAT), tmp_path / "r.gguf")
    assert verify(copy, large.path, SKIP_AND_REPEAT).verdict == "proved"
    assert all(
        runner.runs for runner in runners(smaller, plan_of(smaller, smaller.route("blocks:3,9"))) if "with the list" in runner.name
    )


def test_a_lost_scale_is_named_by_verify(large, tmp_path, monkeypatch):
    monkeypatch.setattr(surgery_gguf, "lost_by_count", lambda model, plan: "")
    copy = routed(large, large.route("blocks:30,33"), tmp_path / "r.gguf")
    monkeypatch.undo()
    report = verify(copy, large.path, "blocks:30,33", QUICK)
    assert report.verdict == "wrong"
    (check, finding) = report.findings[0]
    assert (check, finding.key) == (METADATA, "gemma3.block_count")
    assert "would lose that" in finding.what


@pytest.mark.parametrize(
    ("arch", "before", "after", "lost"),
    [
        ("gemma2", 46, 48, True),
        ("gemma2", 42, 44, False),
        ("exaone4", 64, 70, True),
        ("command-r", 62, 64, True),
        ("command-r", 64, 70, False),
        ("llama", 62, 66, False),
    ],
)
def test_numbers_of_blocks_that_llamacpp_knows_models_by(arch, before, after, lost):
    assert bool(miscounted(arch, before, after)) == lost
    assert not miscounted("gemma3", 62, 64, (128, 128))  # the same scale either way


# Model types as the Hub has them: no list in the configuration -> the kinds of seven layers.
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
DERIVED = {
    "gemma2": ({}, "layer_types", [SLIDING, FULL] * 3 + [SLIDING]),
    "gemma3_text": ({}, "layer_types", [SLIDING] * 5 + [FULL, SLIDING]),
    "cohere2": ({}, "layer_types", [SLIDING] * 3 + [FULL] + [SLIDING] * 3),
    "olmo3": ({}, "layer_types", [SLIDING] * 3 + [FULL] + [SLIDING] * 3),
    "gpt_oss": ({}, "layer_types", [SLIDING, FULL] * 3 + [SLIDING]),
    "exaone4": ({"sliding_window_pattern": 4}, "layer_types", [SLIDING] * 3 + [FULL] + [SLIDING] * 3),
    "smollm3": ({}, "no_rope_layers", [1, 1, 1, 0, 1, 1, 1]),
    "qwen3_next": ({"full_attention_interval": 4}, "layer_types", [LINEAR] * 3 + [FULL] + [LINEAR] * 3),
    "qwen3": ({"use_sliding_window": True, "max_window_layers": 5, "sliding_window": 9}, "layer_types", [FULL] * 5 + [SLIDING] * 2),
    "glm4_moe_lite": ({}, "mlp_layer_types", ["dense"] + ["sparse"] * 6),
}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def rewrite(folder, change):
    config = config_of(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", DERIVED)
def test_kinds_that_follow_from_the_place_are_written_out_and_a_copy_without_them_is_wrong(name, tmp_path):
    keys, listed, kinds = DERIVED[name]
    source = folders.build(tmp_path / "s", name, **keys)
    route = Route.of("blocks:0,3" if listed == "mlp_layer_types" else "blocks:1,4", 7)
    copy = routed_folder(read_folder(source), route, tmp_path / "c")
    assert config_of(copy)[listed] == [kinds[layer] for layer in route.layers]
    assert verify(copy, source).verdict == "proved except forward"
    rewrite(copy, lambda config: config.pop(listed))
    report = verify(copy, source)
    assert report.verdict == "wrong"
    assert {finding.key for _, finding in report.findings} <= {"layer_types", listed}
    assert report.findings[0][1].key == listed or name == "smollm3"


@pytest.mark.parametrize("words", ["layers:0,1,2,3,4,5,6,6,5", "layers:0,5,5,6,1"])
def test_a_leading_number_follows_where_it_can_and_is_refused_where_it_cannot(words, tmp_path):
    source = read_folder(folders.build(tmp_path / "s", "glm4_moe", first_k_dense_replace=1))
    copy = routed_folder(source, Route.of(words, 7), tmp_path / "c")
    assert config_of(copy)["first_k_dense_replace"] == 1
    with pytest.raises(MetadataError, match=r"first_k_dense_replace says what a layer is by its place.*layer 1 of the copy"):
        routed_folder(source, Route.of("blocks:0,2", 7), tmp_path / "d")
    fewer = routed_folder(source, Route.of("layers:1,2,3", 7), tmp_path / "e")
    assert config_of(fewer)["first_k_dense_replace"] == 0


def test_every_other_layer_with_experts_becomes_a_list_of_the_dense_ones(tmp_path):
    source = read_folder(folders.build(tmp_path / "s", "qwen3_moe", decoder_sparse_step=2, mlp_only_layers=[3]))
    config = config_of(routed_folder(source, Route.of("blocks:1,2", 7), tmp_path / "c"))
    assert (config["decoder_sparse_step"], config["mlp_only_layers"]) == (1, [0, 3, 4, 5, 7])


@pytest.mark.parametrize(
    ("name", "keys", "why"),
    [
        ("diffllama", {}, "0.8 - 0.6 exp"),
        ("minimax", {}, "decays by the layer's number"),
        ("gemma3n_text", {}, "embeddings for each layer"),
        ("gemma4_text", {}, "hidden_size_per_layer_input = 256"),
        ("never_seen", {"sliding_window": 512}, "sliding_window is 512 with no layer_types"),
        ("never_seen", {"global_attn_every_n_layers": 4}, "global_attn_every_n_layers is 4"),
        ("never_seen", {"first_k_dense_replace": 1}, "first_k_dense_replace is 1"),
        ("never_seen", {"attn_layer_period": 8, "attn_layer_offset": 4}, "attn_layer_period is 8"),
    ],
)
def test_what_cannot_be_said_is_refused_by_surgery_and_by_route(name, keys, why, tmp_path):
    source = folders.build(tmp_path / "s", name, **keys)
    for refused in (
        lambda: routed_folder(read_folder(source), Route.of("blocks:1,4", 7), tmp_path / "c"),
        lambda: foreseen(source, "blocks:1,4"),
    ):
        with pytest.raises(MetadataError) as error:
            refused()
        assert why in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert routed_folder(read_folder(source), Route.identity(7), tmp_path / "same")


@pytest.mark.parametrize(
    ("name", "keys", "verdict", "status"),
    [
        ("diffllama", {}, "wrong", 1),
        ("never_seen", {"sliding_window": 512}, "not proved", 2),
        ("llama", {}, "proved except forward", 0),
    ],
)
def test_somebody_elses_copy_of_what_cannot_be_said_is_not_proved(name, keys, verdict, status, tmp_path):
    source = folders.build(tmp_path / "s", name, **keys)
    copy = routed_folder(read_folder(folders.build(tmp_path / "l", "llama")), Route.of("blocks:1,4", 7), tmp_path / "c")
    rewrite(copy, lambda config: config.update(model_type=name, **keys))
    report = verify(copy, source, "blocks:1,4")
    assert (report.verdict, report.status) == (verdict, status)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 4096}),  # of all layers
        ("gemma4_text", {"hidden_size_per_layer_input": 0, "layer_types": [SLIDING, FULL] * 3 + [FULL]}),
        ("never_seen", {}),
        ("never_seen", {"sliding_window": 512, "layer_types": [SLIDING, FULL] * 3 + [SLIDING]}),
        ("never_seen", {"sliding_window": 512, "use_sliding_window": False}),
        ("never_seen", {"moe_layer_freq": 1, "first_k_dense_replace": 0}),
        ("qwen2", {"use_sliding_window": False, "max_window_layers": 5, "sliding_window": 9}),
    ],
)
def test_what_does_not_hang_on_a_place_is_copied(name, keys, tmp_path):
    source = folders.build(tmp_path / "s", name, **keys)
    copy = routed_folder(read_folder(source), Route.of("blocks:1,4", 7), tmp_path / "c")
    assert verify(copy, source).verdict == "proved except forward"
    assert foreseen(source, "blocks:1,4")["runners"][0]["runs"]


LINEAR_ONLY = {  # a hybrid -> its keys, and a route that leaves it without a layer that has keys
    "qwen3_next": ({"full_attention_interval": 4}, [0, 1, 2, 4]),
    "qwen3_5_text": ({}, [0, 0]),
    "bamba": ({"attn_layer_indices": [1, 4]}, [0, 2]),
    "jamba": ({"attn_layer_period": 2, "attn_layer_offset": 1}, [0]),
    "lfm2": ({"full_attn_idxs": [1, 4]}, [0, 2]),
    "recurrent_gemma": ({"block_types": ["recurrent", "recurrent", "attention"]}, [0, 1, 3]),
    "never_seen": ({"layer_types": [LINEAR, FULL] * 3 + [LINEAR]}, [2, 4, 6]),
}


@pytest.mark.parametrize("name", LINEAR_ONLY)
def test_a_route_that_leaves_a_hybrid_without_keys_is_refused_and_route_says_so(name, tmp_path):
    keys, layers = LINEAR_ONLY[name]
    source = folders.build(tmp_path / "s", name, **keys)
    why = "does not run a hybrid without a layer that has keys, and this has only (linear_attention|conv|recurrent) layers"
    runner = foreseen(source, f"layers:{','.join(map(str, layers))}")["runners"][0]
    assert (runner["name"], runner["runs"]) == ("Hugging Face transformers", False)
    assert re.search(why, runner["why"])
    with pytest.raises(RouteError, match=why):
        routed_folder(read_folder(source), Route.of(layers, 7), tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_layers_of_one_kind_are_no_hybrid_and_attention_alone_runs(tmp_path):
    for name, keys, layers in (
        ("mamba", {}, [0, 1]),
        ("qwen3_next", {}, [3, 3]),
        ("qwen3_next", {"layer_types": [LINEAR] * 7}, [0, 1]),
    ):
        source = read_folder(folders.build(tmp_path / f"{name}{len(keys)}{layers}", name, **keys))
        assert not not_run(source, folder_plan(source, Route.of(layers, 7)))
    both = read_folder(folders.build(tmp_path / "o", "olmo_hybrid"))
    assert "layers of one kind" in not_run(both, folder_plan(both, Route.of([3, 3], 7)))


def test_somebody_elses_copy_that_transformers_does_not_run_is_not_proved_by_it(tmp_path, monkeypatch):
    source = folders.build(tmp_path / "s", "qwen3_next")
    monkeypatch.setattr(hf_write, "not_run", lambda folder, plan: "")
    copy = routed_folder(read_folder(source), Route.of([0, 1], 7), tmp_path / "c")
    report = verify(copy, source, options=Options(transformers=True))
    assert (report.verdict, report.status) == ("not proved", 2)
    assert verify(copy, source).verdict == "proved except forward"


def test_code_that_reads_a_layers_number_stops_an_unknown_type(tmp_path):
    source = folders.build(tmp_path / "s", "never_seen")
    (source / "modeling_never.py").write_text("self.slides = layer_idx % 4 != 3\n")
    with pytest.raises(MetadataError, match=r"modeling_never\.py, line 1, reads a layer's number"):
        foreseen(source, "blocks:1,4")
    (source / "modeling_never.py").write_text("super().__init__(config, layer_idx)\n")
    assert foreseen(source, "blocks:1,4")


def test_a_text_part_without_a_type_of_its_own_is_read_as_the_tops():
    assert model_type({"model_type": "gemma3"}, {}) == "gemma3_text"
    assert model_type({"model_type": "qwen3_5"}, {}) == "qwen3_5_text"
    assert model_type({}, {"model_type": "llama"}) == "llama"
    assert len(ALIKE | FACTS.keys() | REFUSED.keys()) == len(ALIKE) + len(FACTS) + len(REFUSED)


@pytest.mark.parametrize(
    ("name", "words", "runs", "why"),
    [
        ("gemma3_text", "blocks:1,4", False, "drops the kinds; by its place llama.cpp takes layer 5 for 'full_attention'"),
        ("gemma3_text", "blocks:0,6", True, "those that llama.cpp takes by place are the same"),
        ("olmo3", "blocks:1,4", True, "lists the kinds"),
        ("lfm2", "blocks:1,4", True, "lists the kinds"),
        ("smollm3", "blocks:1,4", False, "drops the kinds"),
    ],
)
def test_which_converter_keeps_the_kinds_is_told_before(name, words, runs, why, tmp_path):
    source = folders.build(tmp_path / "s", name, hidden_size=128, num_attention_heads=4, head_dim=64)
    converted = next(r for r in foreseen(source, words)["runners"] if "convert_hf_to_gguf.py" in r["name"])
    assert converted["runs"] == runs
    assert why in converted["why"]


def test_a_conversion_that_changes_the_27b_scale_is_told():
    said = conversion("gemma3_text", [SLIDING] * 64, (62, 64), (168, 128))
    assert said is not None
    assert not said[0]
    assert "62 blocks only" in said[1]
    assert conversion("phi", [], (1, 2), (1, 1)) is None
