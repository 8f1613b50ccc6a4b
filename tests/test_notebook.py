"""Values in a notebook: their HTML is whole, escaped and asks nothing of a network; bars are shown there and go again."""

import sys

import numpy as np
import pytest
import tiny
from diagnosing import dumped, written
from report_pages import Read, compared
from rich.console import Console
from test_report import EVIL

import refmodel
from refmodel.compare.rows import Row
from refmodel.faults.diagnosis.diagnosis import diagnose
from refmodel.faults.fault import Engine
from refmodel.model.route import Route
from refmodel.numerics import NUMPY
from refmodel.report.console import shown
from refmodel.report.progress import counting, sweeping, watching
from refmodel.sweep.anatomy import Anatomy, BlockFacts
from refmodel.sweep.ledger import Sweep
from refmodel.sweep.results import Result, Results

CALLS = [[5, 6, 7, 8, 9, 17, 41, 3]]
NOTEBOOK = """
import refmodel
from refmodel.report.console import err
from refmodel.report.progress import sweeping
from refmodel.sweep.anatomy import anatomy
import time
model = refmodel.load(PATH)
with sweeping(err) as seen:
    for left in range(4, -1, -1):
        seen(f"<b>{left}</b>", left)
        time.sleep(0.15)
found = anatomy(model, [5, 6, 7], refmodel.NUMPY)
---
model
---
model.route("blocks:1,2")
---
found
"""


def card(value) -> Read:
    """A value as a notebook shows it: whole, without scripts, without an address."""
    read = Read(value._repr_html_())
    assert not read.unclosed
    assert not read.twice
    assert not [tag for tag, _ in read.elements if tag in ("script", "img", "link", "iframe")]
    for _, attributes in read.elements:
        assert not {"src", "action", "onload", "onerror"} & attributes.keys()
        assert attributes.get("href", "#").startswith(("#", "data:"))
    return read


def words(read: Read, *tags: str) -> list[str]:
    return [text for (tag, _), text in zip(read.elements, read.texts) if tag in tags]


def test_a_route_shows_its_seams():
    read = card(Route.parse("blocks:1,3", 4))
    assert "Route: blocks:1,3" in words(read, "p")
    assert "0 1 2 | 1 2 3" in words(read, "td")


def test_a_model_shows_what_it_is_and_its_name_is_no_markup(tmp_path):
    path = tmp_path / "<b>&amp;.gguf"
    model = refmodel.load(tiny.build(path, "llama"))
    read = card(model)
    assert f"Model: {path.name}" in words(read, "p")
    assert {"llama", str(path), f"{model.hp.n_embd}"} <= set(words(read, "td"))


def test_a_difference_counts_and_shows_each_block(tmp_path):
    done = compared(tmp_path, [[5, 6, 7]], {"Qcur_normed-2": lambda x: x * np.float32(1.01)})
    read = card(done.result)
    same, known = sum(not row.differ for row in done.result.rows), len(done.result.rows)
    assert f"Difference: {same} of {known} tensors have the same bits" in words(read, "p")
    assert {f"l_out-{i}" for i in range(5)} < set(words(read, "th"))
    done.result.rows.append(Row(EVIL, (2,), *[float("nan")] * 4, 0, EVIL))
    assert f"not compared: {shown(EVIL)}: {shown(EVIL)}" in words(card(done.result), "p")


def test_an_anatomy_draws_its_blocks():
    blocks = [BlockFacts(i, "delta", 2.0, 0.25 / (i + 1), i, 0.5, None, (0.5, 0.75)) for i in range(30)]
    read = card(Anatomy(blocks, np.zeros((31, 31)), EVIL))
    assert len(read.all("figure")) == 1
    assert "and 5 more" in words(read, "p")
    assert "0.2500" in words(read, "td")


def test_a_sweep_shows_its_verdict_and_routes():
    about = Sweep("0" * 64, EVIL, 3, "reference", {"nll:t": {"questions": 4, "better": "lower", "group": 1, "held_out_of": ""}})
    scores = {"blocks:0,0": [2.0, 2.1, 2.2, 2.3], "blocks:0,1": [1.0, 1.1, 1.2, 1.3]}
    rows = [Result(Route.parse(route, 3), "", {"nll:t": values}, {}, 0.1, "now") for route, values in scores.items()]
    read = card(Results(about, rows))
    assert set(scores) <= set(words(read, "th"))
    assert f"{shown(EVIL)}, 3 blocks" in words(read, "td")


def test_a_diagnosis_says_what_it_found(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama"))
    other = dumped(model, written(Engine(model, NUMPY), CALLS, "hidden", 0.0, np.random.default_rng(1)), CALLS)
    read = card(diagnose(model, other, [], lambda name: None))
    assert any(text.startswith("Diagnosis: HEALTHY") for text in words(read, "p"))
    assert "result_output" in words(read, "th")


def test_without_the_extra_a_value_is_its_text(monkeypatch):
    route = Route.parse("blocks:1,2", 4)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    from refmodel.report import html

    html.environment.cache_clear()
    assert route._repr_html_() is None


def test_bars_are_quiet_in_a_pipe(capsys):
    console = Console(file=sys.stdout)
    with watching(console, "w") as seen:
        seen("[red]x")
    with sweeping(console) as swept:
        swept("a", 1)
    assert capsys.readouterr().out.strip() == ""
    with counting(console, "c", 2) as counted:
        counted("[red]x")
    assert capsys.readouterr().out.strip() == "c: [red]x"


@pytest.mark.live
def test_a_real_notebook_shows_them(tmp_path):
    client = pytest.importorskip("nbclient", reason="no notebook is run: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    path = tiny.build(tmp_path / "m.gguf", "llama")
    cells = NOTEBOOK.replace("PATH", repr(str(path))).split("---\n")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    drawn = []
    runner = client.NotebookClient(book, timeout=300, kernel_name="python3")
    process = runner.process_message
    runner.process_message = lambda message, *rest: (drawn.append(message), process(message, *rest))[1]
    runner.execute()
    bars = [m["content"]["data"]["text/html"] for m in drawn if m["msg_type"] in ("display_data", "update_display_data")]
    assert any("<progress max=" in text and "&lt;b&gt;" in text for text in bars)
    assert bars[-1] == ""
    assert not [output for cell in book.cells for output in cell.outputs if output.output_type in ("stream", "error")]
    for cell, name in zip(book.cells[1:], ("Model: m.gguf", "Route: blocks:1,2", "Anatomy: "), strict=True):
        (output,) = cell.outputs
        assert name in output.data["text/html"]
        assert output.data["text/plain"]
