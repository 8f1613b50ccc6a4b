"""Arrays whose names say nothing are found by their numbers; tests/many_matches.py does it for many random dumps."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from many_matches import case
from test_cli import refmodel as command

import refmodel
from refmodel.compare.matching import matched, sure
from refmodel.compare.rounding_classes import through
from refmodel.dumps.dump import Dump, Numbers
from refmodel.dumps.map_file import as_toml, read_map, together
from refmodel.errors import DumpError, TokenError

IDS = [5, 6, 7, 8, 9, 17, 41, 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("m") / "m.gguf", "qwen35", seed=4, n_layer=3))


@pytest.fixture(scope="module")
def run(model):
    taps = {}
    model.forward(IDS, tapper=lambda name, x: (taps.__setitem__(name, np.array(x)), x)[1])
    return taps


def dump(arrays):
    return Dump(Path("run"), "arrays", {k: Numbers(x.shape, "F32", lambda x=x: x) for k, x in arrays.items()}, [IDS])


def found(model, arrays):
    matches, taps = matched(model, dump(arrays), [IDS], model.route(), lambda name: None)
    return {m.own: m for m in matches}, taps


@pytest.mark.parametrize("seed", [0, 1, 3])  # a fault in attention; hidden states with a fault in the last block; no fault
def test_a_random_dump_is_matched(seed, tmp_path):
    row = case(seed, tmp_path)
    assert row["wrong_before"] == row["wrong_after"] == row["wrong_sure"] == []
    assert row["sure"] == (seed == 3)


def test_axes_heads_and_tokens_are_found(model, run):
    x = {
        "a": run["Qcur-2"].transpose(1, 0, 2),
        "b": run["z-1"].reshape(8, 3, 3, 8).transpose(0, 2, 1, 3).reshape(8, 72),  # of each key head its value heads
        "c": run["l_out-1"][2:5],
        "d": run["result_output"][-1],
        "e": run["attn_output-0"][None],
    }
    matches, taps = found(model, x)
    assert {m.how for m in matches.values()} == {"sure"}
    places = {own: (m.place.tap, m.place.axes, m.place.order, m.place.first, m.place.count) for own, m in matches.items()}
    assert places == {
        "a": ("Qcur-2", (1, 0, 2), "as it is", 0, 8),
        "b": ("z-1", (), "grouped heads", 0, 8),
        "c": ("l_out-1", (), "as it is", 2, 3),
        "d": ("result_output", (), "as it is", 7, 1),
        "e": ("attn_output-0", (), "as it is", 0, 8),
    }
    assert taps["l_out-1"].shape == (8, 22)


def test_a_run_that_rounds_is_matched_too(model, run):
    matches, _ = found(model, {f"x{i}": through(run[f"l_out-{i}"], 8) for i in range(3)} | {"y": through(run["result_output"], 8)})
    assert [(m.how, m.place.tap) for m in matches.values()] == [
        ("sure", "l_out-0"),
        ("sure", "l_out-1"),
        ("sure", "l_out-2"),
        ("sure", "result_output"),
    ]


def test_what_is_not_of_this_run_is_not_called_sure(model, run):
    r = np.random.default_rng(1)
    arrays = {"a": run["l_out-0"], "b": r.standard_normal((8, 22)), "c": r.standard_normal((5, 7)), "d": run["l_out-0"].copy()}
    matches, _ = found(model, arrays)
    assert [matches[k].how for k in "ad"] == ["sure", "twice"]
    assert matches["b"].how in ("guess", "none")
    assert matches["c"].how == "none"
    assert not sure(list(matches.values()))


def test_the_map_gives_the_taps_back_and_joins_what_belongs_together(model, run, tmp_path):
    for i in range(3):
        np.save(tmp_path / f"dec{i + 1}_out.npy", run[f"l_out-{i}"].T)
    np.save(tmp_path / "head7.npy", run["result_output"][-1:])
    out = tmp_path.parent / f"{tmp_path.name}.toml"
    words = ("dumps", "match", tmp_path, "--model", model.path, "--tokens", ",".join(map(str, IDS)))
    done = command(*words, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["sure"], len(report["matches"])) == (True, 4)
    rules = read_map(out)
    assert [(rule.pattern.pattern, rule.tap, rule.offset, rule.axes) for rule in rules] == [
        (r"dec(\d+)_out", "l_out-{0}", -1, (1, 0)),
        ("head7", "result_output", 0, ()),
    ]
    assert as_toml(rules) == out.read_text()
    done = command("diff", model.path, "--against", tmp_path, "--map", out, "--tokens", ",".join(map(str, IDS)), "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "within"), done.stderr
    np.save(tmp_path / "dec9_out.npy", np.zeros((22, 8), np.float32))
    assert command(*words).returncode == 1, "an array that is nothing of this run: not sure"


def test_rules_are_not_joined_where_the_pattern_would_match_another_name():
    lines = {"a1": "l_out-1", "a2": "l_out-2", "a3": "z-3"}
    rules = {name: read_rule(name, tap) for name, tap in lines.items()}
    assert [rule.tap for rule in together(rules)] == ["l_out-1", "l_out-2", "z-3"]
    assert [rule.tap for rule in together({k: v for k, v in rules.items() if k != "a3"})] == ["l_out-{0}"]


def read_rule(name, tap):
    from refmodel.dumps.map_file import rule

    return rule("here", {"pattern": name, "tap": tap})


def test_what_cannot_be_matched_is_one_line(model, run, tmp_path):
    with pytest.raises(TokenError, match="outside the vocabulary"):
        matched(model, dump({"a": run["l_out-0"]}), [[9999]], model.route(), lambda name: None)
    partial = Dump(Path("log"), "a log", {"a": Numbers((8, 22), "F32", lambda: np.zeros(3), at=np.arange(3))}, [IDS])
    with pytest.raises(DumpError, match="has no array with all its numbers"):
        matched(model, partial, [IDS], model.route(), lambda name: None)
    np.save(tmp_path / "a.npy", run["l_out-0"])
    done = command("dumps", "match", tmp_path, "--model", model.path)
    assert done.returncode == 2
    assert "does not say which tokens it ran" in done.stderr
    done = command("dumps", "match", tmp_path / "no", "--model", model.path, "--tokens", "1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
