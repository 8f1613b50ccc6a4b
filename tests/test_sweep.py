"""Sweeps: plans, the ledger, scores, and that nothing is lost, doubled or mixed."""

import json
import os
import pickle
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import RefmodelError, SweepError
from refmodel.model.route import Route
from refmodel.numerics import NUMPY
from refmodel.sweep.anatomy import anatomy
from refmodel.sweep.leases import alive, me
from refmodel.sweep.ledger import Job, Outcome, Sweep, made, opened
from refmodel.sweep.probes.text import text_probe
from refmodel.sweep.results import results
from refmodel.sweep.windows import (
    Wishes,
    every_window,
    planned,
    repeated,
    routes_of_file,
    skipped,
    some_windows,
    swapped,
    window_of,
)

TEXT = "the cat sat on the mat and the dog lay by the door of the old house near the sea"
ABOUT = Sweep("00" * 32, "tiny.gguf", 3, "numpy", {"nll": {"digest": "d", "questions": 4, "better": "lower", "group": 1}})


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("sweep") / "tiny.gguf", "llama")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def sweep(*words) -> tuple[int, str]:
    """Exit status and standard output; a RefmodelError is 2 and its line, as the program has it."""
    done = CliRunner().invoke(app, ["sweep", *map(str, words)])
    if isinstance(done.exception, RefmodelError):
        return 2, str(done.exception)
    return done.exit_code, done.stdout


def lines(ledger: Path, *words) -> list[dict]:
    status, out = sweep("show", ledger, "--jsonl", *words)
    assert status == 0, out
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(("n", "count"), [(36, 666), (48, 1176), (80, 3240)])
def test_there_are_as_many_windows_as_rys_has_without_the_baseline(n, count):
    assert len(set(every_window(n))) == len(every_window(n)) == count


def test_windows_by_words():
    assert some_windows("size=4 stride=1 start=8..32", 32)[-1] == (28, 32)
    assert some_windows("size=8 stride=4", 32) == [(i, i + 8) for i in range(0, 25, 4)]
    assert some_windows("size=1..2 start=1", 3) == [(1, 2), (1, 3)]
    for words in ("stride=1", "size=0", "size=2 size=3", "size=9", "size=x", "size=2 stride=0"):
        with pytest.raises(SweepError, match="--windows"):
            some_windows(words, 5)


def test_what_is_done_with_a_window():
    assert repeated((1, 3), 5).layers == (0, 1, 2, 1, 2, 3, 4)
    assert repeated((1, 3), 5) == Route.parse("blocks:1,3", 5)
    assert repeated((1, 3), 5, 3).layers == (0, 1, 2, 1, 2, 1, 2, 3, 4)
    assert skipped((1, 3), 5).layers == (0, 3, 4)
    assert skipped((0, 5), 5) is None
    assert swapped((0, 2), 5).layers == (2, 3, 0, 1, 4)
    assert swapped((2, 4), 5) is None


def test_a_window_is_known_from_its_route():
    for window in every_window(6):
        assert window_of(repeated(window, 6)) == window
    assert window_of(Route.identity(6)) == (0, 0)
    for route in (skipped((1, 2), 6), swapped((1, 2), 6), repeated((1, 2), 6, 3), Route.parse("blocks:1,3;4,5", 6)):
        assert window_of(route) is None


def test_a_plan_begins_with_the_unrouted_model_and_has_each_route_once():
    plan = planned(Wishes(every=True, windows=["size=2"]), 4)
    assert plan[0].is_identity
    assert len(set(plan)) == len(plan) == 11
    assert len(planned(Wishes(skip=True, swap=True), 3)) == 1 + 5 + 2  # not without any block; (0, 1) and (1, 2) have a next one


@pytest.mark.parametrize(
    "text",
    [
        "blocks:1,2 # a window\n\nlayers:0,1,2,1\n(0,2)\n",
        json.dumps([{"idx": 0, "key": [1, 2]}, {"layers": [0, 1, 2, 1]}, "blocks:0,2"]),
        json.dumps(["blocks:1,2", [0, 1, 2, 1], {"spec": "blocks:0,2"}]),
    ],
)
def test_routes_of_a_file(tmp_path, text):
    path = tmp_path / "routes"
    path.write_text(text)
    assert [route.layers for route in routes_of_file(path, 3)] == [(0, 1, 1, 2), (0, 1, 2, 1), (0, 1, 0, 1, 2)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "blocks:1,9", "1,2", "[1, 2]", '[{"a": 1}]', "[[0, 7]]", "[", b"\xff\xfe"])
def test_a_file_without_routes_is_one_line(tmp_path, text):
    path = tmp_path / "routes"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RefmodelError, match="routes") as caught:
        routes_of_file(path, 3)
    assert "\n" not in str(caught.value)


def test_the_loss_is_the_models_own(model_path, text_file, tmp_path):
    ledger = tmp_path / "l.db"
    status, out = sweep(model_path, "--all", "--probe", f"nll:{text_file}", "--full", "-o", ledger, "--numerics", "numpy", "--json")
    assert status == 0, out
    model = refmodel.load(model_path)
    ids = model.tokenizer.encode(TEXT, add_special=True)
    found = lines(ledger)
    assert len(found) == 7
    assert found[0]["is_baseline"]
    for line in found:
        logits = model.forward(ids, line["route"], "numpy").astype(np.float64)
        shifted = logits[:-1] - logits[:-1].max(axis=1, keepdims=True)
        wanted = -(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))[np.arange(len(ids) - 1), ids[1:]]
        assert line["n"] == len(ids) - 1
        assert abs(line["scores"]["nll"] - wanted.mean()) < 1e-5  # the exponentials are float32 there
    assert {(line["dup_start"], line["dup_end"]) for line in found} == {(-1, -1), *every_window(3)}


def test_kl_is_nothing_without_a_route_and_something_with_one(model_path, text_file, tmp_path):
    ledger = tmp_path / "l.db"
    assert sweep(model_path, "--all", "--probe", f"kl:{text_file}", "-o", ledger, "--numerics", "numpy")[0] == 0
    base, *others = lines(ledger)
    assert base["scores"]["kl"] == 0
    assert all(line["scores"]["kl"] > 0 for line in others)


def test_questions_in_portions_have_the_scores_of_the_whole(model_path):
    model = refmodel.load(model_path)
    ids = model.tokenizer.encode(TEXT * 30, add_special=False)
    probe = text_probe("nll", ids, None, False)
    assert len(probe.sequences) > 1
    n = probe.facts.questions
    assert n == len(ids) - len(probe.sequences)

    def asked(first, stop):
        calls = probe.calls(first, stop, None)
        return probe.answers(first, stop, [call.take(model.forward(call.tokens, None, "numpy")[call.first :]) for call in calls])

    cuts = [0, 48, len(probe.sequences[0]) + 5, n]  # in a sequence, and across two
    assert [answer for first, stop in pairwise(cuts) for answer in asked(first, stop)] == asked(0, n)


def test_a_second_run_computes_nothing(model_path, text_file, tmp_path):
    ledger = tmp_path / "l.db"
    words = (model_path, "--all", "--probe", f"nll:{text_file}", "-o", ledger, "--numerics", "numpy", "--json")
    first, second = (json.loads(sweep(*words)[1]) for _ in range(2))
    assert first["block_runs"] > 0 == second["block_runs"]
    with opened(ledger) as base:
        assert len(base.answers()) == 7


def test_a_ledger_takes_no_other_model_probe_or_numerics(model_path, text_file, tmp_path):
    ledger, other, longer = tmp_path / "l.db", tiny.build(tmp_path / "other.gguf", "llama", seed=1), tmp_path / "longer.txt"
    longer.write_text(TEXT + " again")

    def tried(model=model_path, text=text_file, numerics="numpy"):
        return sweep(model, "--windows", "size=1", "--probe", f"nll:{text}", "-o", ledger, "--numerics", numerics)

    assert tried()[0] == 0
    before = lines(ledger)
    for changed, word in (
        ({"model": other}, "another model"),
        ({"text": longer}, "other probes"),
        ({"numerics": "oracle"}, "--numerics"),
    ):
        status, out = tried(**changed)
        assert status == 2
        assert word in out
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model_path.read_bytes())  # harmless: the same file under another name
    assert tried(model=copy)[0] == 0
    assert lines(ledger) == before


def test_what_is_no_ledger_stays_as_it_is(model_path, text_file, tmp_path):
    import sqlite3

    text, base, missing = tmp_path / "a.txt", tmp_path / "b.db", tmp_path / "none.db"
    text.write_text("a letter")
    with sqlite3.connect(base) as connection:
        connection.execute("CREATE TABLE about (x)")
    connection.close()
    for path in (text, base, model_path):
        before = path.read_bytes()
        assert sweep(model_path, "--all", "--probe", f"nll:{text_file}", "-o", path, "--numerics", "numpy")[0] == 2
        assert sweep("show", path)[0] == 2
        assert path.read_bytes() == before
    assert sweep("show", missing)[0] == 2
    assert not missing.exists()
    words = (model_path, "--probe", f"nll:{text_file}", "-o", missing)
    assert sweep(*words)[0] == 2
    assert sweep(*words, "--windows", "size=9")[0] == 2
    assert sweep(*words, "--all", "--probe", "nil:x")[0] == 2
    assert not missing.exists()


def test_a_job_is_written_once(tmp_path):
    with made(tmp_path / "l.db", ABOUT) as ledger:
        numbers = ledger.add([("blocks:0,0", (0, 1, 2), ""), ("blocks:0,1", (0, 0, 1, 2), "note")])
        jobs = [Job(number, "nll", 0, 2) for number in numbers.values()]
        assert ledger.claim(jobs, 5) == jobs
        assert ledger.record(jobs[0], Outcome([1.0, 0.1 + 0.2], [], 0.5))
        assert not ledger.record(jobs[0], Outcome([9.0, 9.0], [], 0.5))
        assert ledger.missing(jobs) == jobs[1:]
        assert results(ledger).rows[0].scores == {"nll": [1.0, 0.1 + 0.2]}


def test_a_lease_ends_with_its_process(tmp_path):
    child = "import sys; from pathlib import Path; from refmodel.sweep.ledger import *; from test_sweep import ABOUT\n"
    child += "l = made(Path(sys.argv[1]), ABOUT); ids = l.add([('blocks:0,0', (0, 1, 2), '')])\n"
    child += "print(len(l.claim([Job(1, 'nll', 0, 2)], 1)), flush=True); sys.stdin.read()"
    path, job = tmp_path / "l.db", Job(1, "nll", 0, 2)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", child, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout.readline() == b"1\n"
        with made(path, ABOUT) as ledger:
            assert ledger.claim([job], 1) == []
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert ledger.claim([job], 1) == [job]


def test_a_lease_of_another_machine_ends_with_its_time():
    assert alive("elsewhere:1:2", until=10.0, now=9.0)
    assert not alive("elsewhere:1:2", until=10.0, now=11.0)
    assert alive(me(), until=10.0, now=11.0)


def test_filters_and_exports(model_path, text_file, tmp_path):
    ledger, theirs = tmp_path / "l.db", tmp_path / "ng.pkl"
    assert sweep(model_path, "--all", "--probe", f"nll:{text_file}", "-o", ledger, "--numerics", "numpy")[0] == 0
    assert len(lines(ledger, "--size", "2")) == 3
    assert {line["route"] for line in lines(ledger, "--block", "0")} == {"blocks:0,0", "blocks:0,1", "blocks:0,2", "blocks:0,3"}
    best = min(lines(ledger)[1:], key=lambda line: line["scores"]["nll"])
    assert lines(ledger, "--top", "1")[1:] == [best]
    assert sweep("show", ledger, "--ng", theirs)[0] == 0
    found = pickle.loads(theirs.read_bytes())
    assert found[tuple(best["layers"])]["score"] == best["scores"]["nll"]
    assert sweep("show", ledger, "--by", "math")[0] == 2


def test_a_route_that_a_runtime_cannot_load_is_run_and_marked(tmp_path, text_file):
    hybrid, ledger = tiny.build(tmp_path / "h.gguf", "qwen35"), tmp_path / "l.db"
    words = ("--windows", "size=1 start=0..1", "--probe", f"nll:{text_file}", "-o", ledger, "--numerics", "numpy")
    assert sweep(hybrid, *words)[0] == 0
    base, *others = lines(ledger)
    assert base["note"] == ""
    assert all("not in" in line["note"] and line["n"] == base["n"] for line in others)
    assert len(lines(ledger, "--loadable")) == 1


def test_a_beam_tries_several_windows_and_two_passes_go_on_where_it_was_best(tmp_path, text_file):
    model = tiny.build(tmp_path / "m.gguf", "llama", n_layer=4, alike="the blocks are as many as the heads of a key")
    words = ("--probe", f"nll:{text_file}", "--tokens", "12", "--numerics", "numpy", "--json")
    beam, passes = tmp_path / "beam.db", tmp_path / "passes.db"
    assert sweep(model, "--beam", "--windows", "size=1", "-o", beam, *words)[0] == 0
    found = {line["route"] for line in lines(beam)}
    assert {"blocks:0,0", "blocks:0,1", "blocks:0,1;1,2", "blocks:1,2;2,3;3,4"} <= found
    assert len(found) == 1 + 4 + 6 + 4
    assert sweep(model, "--two-pass", "-o", passes, *words)[0] == 0
    coarse, fine = (lines(passes, "--size", size)[1:] for size in (2, 1))
    assert [line["route"] for line in coarse] == ["blocks:0,2", "blocks:1,3", "blocks:2,4"]
    best = min(coarse, key=lambda line: line["scores"]["nll"])
    assert [(line["dup_start"], line["dup_end"]) for line in fine] == [
        (i, i + 1) for i in range(best["dup_start"], best["dup_end"])
    ]
    assert sweep(model, "--two-pass", "--all", "-o", passes, *words)[0] == 2


def test_a_race_reports_its_rungs_and_is_in_the_ledger(model_path, text_file, tmp_path):
    ledger = tmp_path / "l.db"
    words = (model_path, "--all", "--probe", f"nll:{text_file}", "--race", "-o", ledger, "--numerics", "numpy", "--json")
    first = json.loads(sweep(*words)[1])
    assert [rung["questions"] for rung in first["rungs"]] == sorted(rung["questions"] for rung in first["rungs"])
    assert json.loads(sweep(*words)[1]) == first | {"block_runs": 0}
    assert lines(ledger)[0]["n"] == first["rungs"][-1]["questions"]


def test_held_out_questions_are_asked_of_the_finalists_only(model_path, text_file, tmp_path):
    ledger, other = tmp_path / "l.db", tmp_path / "other.txt"
    other.write_text("a ship came over the sea to the old house")
    words = (model_path, "--all", "--probe", f"nll:{text_file}", "--held-out", f"nll:{other}", "-o", ledger, "--numerics", "numpy")
    figures = json.loads(sweep(*words, "--json")[1])
    assert figures["verdicts"][0]["held_out"]["p"] <= 1
    found = [line for line in lines(ledger) if len(line["scores"]) == 2]
    assert {"blocks:0,0", figures["verdicts"][0]["route"]} <= {line["route"] for line in found}
    assert sweep(*words, "--held-out", f"kl:{other}")[0] == 2


def test_a_race_that_goes_on_in_full_asks_only_what_is_missing(tmp_path):
    """Some of fifteen windows leave early; then all meet all questions, each once, with the scores of a full sweep."""
    model, text = tiny.build(tmp_path / "m.gguf", "llama", n_layer=5), tmp_path / "t.txt"
    text.write_text(" ".join(TEXT.split()[k % 7 :: 1 + k % 3][n] for k in range(12) for n in range(5)))
    words = ("--probe", f"nll:{text}", "--numerics", "numpy", "--json")
    raced, whole = tmp_path / "race.db", tmp_path / "full.db"
    status, out = sweep(model, "--all", *words, "-o", raced)
    rungs = json.loads(out)["rungs"]
    assert (status, rungs[0]["routes"]) == (0, 15)
    assert rungs[-1]["routes"] < 15
    assert sweep(model, "--all", "--full", *words, "-o", raced)[0] == 0
    assert sweep(model, "--all", "--full", *words, "-o", whole)[0] == 0
    with opened(raced) as one, opened(whole) as other:
        a, b, asked = results(one), results(other), one.answers()
    assert {row.route: row.scores for row in a.rows} == {row.route: row.scores for row in b.rows}
    assert sum(answer["n"] for answer in asked) == b.about.probes["nll"]["questions"] * len(b.rows)


def test_a_prior_lets_the_windows_start_that_turn_least(tmp_path, text_file):
    model, ledger = tiny.build(tmp_path / "m.gguf", "llama", n_layer=5), tmp_path / "l.db"
    words = ("--all", "--probe", f"nll:{text_file}", "--numerics", "numpy", "-o", ledger, "--json")
    status, out = sweep(model, *words, "--prior", "0.4")
    figures = json.loads(out)
    assert (status, figures["routes"], figures["not_started"]) == (0, 1 + 6, 9)
    loaded = refmodel.load(model)
    angles = anatomy(loaded, loaded.tokenizer.encode(text_file.read_text(), add_special=True, parse_special=False), NUMPY).angles
    with opened(ledger) as base:
        started = [row.window for row in results(base).rows if not row.route.is_identity]
    assert max(angles[w] for w in started) < min(angles[w] for w in every_window(5) if w not in started)
    assert sweep(model, *words, "--prior", "0.4", "--full")[0] == 2


def test_an_engine_that_is_none_is_one_line(model_path, text_file, tmp_path):
    words = (model_path, "--all", "--probe", f"nll:{text_file}", "-o", tmp_path / "l.db")
    assert sweep(*words, "--engine", "dask")[0] == 2
    assert sweep(*words, "--address", "auto")[0] == 2
    assert not (tmp_path / "l.db").exists()


def test_parquet_has_the_lines_of_jsonl(model_path, text_file, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="no Parquet is written: pip install 'refmodel[parquet]'")
    ledger, file = tmp_path / "l.db", tmp_path / "l.parquet"
    assert sweep(model_path, "--all", "--probe", f"nll:{text_file}", "-o", ledger, "--numerics", "numpy")[0] == 0
    assert sweep("show", ledger, "--parquet", file)[0] == 0
    lines = [json.loads(line) for line in sweep("show", ledger, "--jsonl")[1].splitlines()]
    table = parquet.read_table(file).to_pylist()
    assert [row["route"] for row in table] == [line["route"] for line in lines]
    assert [row["seconds"] for row in table] == [line["seconds"] for line in lines]
