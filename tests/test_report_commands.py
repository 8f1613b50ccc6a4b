"""The reports of verify, sweep show and anatomy hold what these commands print."""

import json

import pytest
import tiny
from gguf import GGUFReader
from report_pages import Read
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.report.sweep_page import not_beaten
from refmodel.surgery.gguf import routed


def run(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def page(path) -> Read:
    """A report that is whole, and names no element twice."""
    read = Read(path.read_text())
    assert not read.unclosed
    assert not read.twice
    return read


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("m") / "m.gguf", "llama")


def test_a_proof_says_what_is_wrong_and_where(model, tmp_path):
    loaded, copy, report = refmodel.load(model), tmp_path / "copy.gguf", tmp_path / "x.html"
    routed(loaded, loaded.route("blocks:1,2"), copy)
    status, printed = run("verify", copy, "--source", model, "--no-forward", "--html", report)
    verdict = printed.splitlines()[-1]
    assert status == 0
    assert [text for _, text in page(report).all("p", cls="verdict good")] == [verdict]

    tensor = next(tensor for tensor in GGUFReader(copy).tensors if tensor.name == "blk.2.ffn_down.weight")
    with copy.open("r+b") as file:
        file.seek(tensor.data_offset)
        file.write(b"\x01\x02\x03\x04")
    status, printed = run("verify", copy, "--source", model, "--no-forward", "--html", report, "--md")
    assert status == 1
    assert printed.startswith("**WRONG: the copy is not the source")
    assert "blk.2.ffn_down.weight" in printed
    read = page(report)
    assert read.all("p", cls="verdict bad")
    assert "blk.2.ffn_down.weight" in {text for _, text in read.all("th", scope="row")}


def test_a_sweep_shows_every_window_and_every_route(model, tmp_path):
    text, ledger, report = tmp_path / "t.txt", tmp_path / "l.db", tmp_path / "x.html"
    text.write_text("the cat sat on the mat and the dog lay by the door of the old house near the sea")
    run("sweep", "run", model, "--all", "--probe", f"nll:{text}", "-o", ledger, "--numerics", "numpy")
    rows = [json.loads(line) for line in run("sweep", "show", ledger, "--jsonl")[1].splitlines()]
    assert run("sweep", "show", ledger, "--html", report) == (0, "")
    read = page(report)
    heat, bars, points = [json.loads(text) for _, text in read.all("script", type="application/json")]
    base = rows[0]["scores"]["nll"]
    assert bars["series"][0]["values"] == [heat["values"][i][i] for i in range(3)]
    assert len(points["at"]) == len(rows) - 1
    for row in rows[1:]:
        found = heat["values"][row["dup_start"]][row["dup_end"] - 1]
        assert found == pytest.approx(base - row["scores"]["nll"], rel=0.01)  # three digits are shown
    assert {row["route"] for row in rows} <= {text for _, text in read.all("button")}
    status, printed = run("sweep", "show", ledger, "--md")
    assert status == 0
    assert sum(line.startswith("| ") for line in printed.splitlines()) == 1 + len(rows)


def test_the_front_has_what_no_cheaper_route_beats():
    assert not_beaten([1, 1, 2, 3, 0], [0.5, 0.7, 0.6, 0.9, -1]) == [4, 1, 3]
    assert not_beaten([], []) == []


def test_an_anatomy_shows_every_block(model, tmp_path):
    report = tmp_path / "x.html"
    found = json.loads(run("anatomy", model, "--tokens", "5,6,7", "--json", "--html", report)[1])
    numbers = [json.loads(text) for _, text in page(report).all("script", type="application/json")]
    assert numbers[0]["series"][0]["values"] == [float(f"{block['influence']:.3g}") for block in found["blocks"]]
    assert numbers[2]["values"][0][2] == float(f"{found['angles'][0][3]:.3g}")
