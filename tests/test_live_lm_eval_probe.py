"""A task of lm-evaluation-harness as a probe of a sweep: each item's score is what the harness itself says under that route."""

import json

import pytest
from lm_eval_scores import AUSTEN, evaluated, make_tasks
from typer.testing import CliRunner

from refmodel.cli import app

pytestmark = pytest.mark.live
ITEMS = 12


@pytest.mark.filterwarnings("ignore")
def test_a_probe_scores_as_the_harness_does(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="no task is run: pip install 'refmodel[lm-eval]'")
    from refmodel.lm_eval import Harnessed

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_tasks(tmp_path, ITEMS)
    ledger, words = tmp_path / "l.db", ["--numerics", "numpy", "--full", "-o"]
    sweep = [
        "sweep",
        str(AUSTEN),
        "--windows",
        "size=1 start=3..4",
        "--probe",
        f"lm_eval:{tmp_path / 'sums.yaml'}",
        *words,
        str(ledger),
    ]
    assert CliRunner().invoke(app, sweep).exit_code == 0
    lines = [json.loads(line) for line in CliRunner().invoke(app, ["sweep", "show", str(ledger), "--jsonl"]).stdout.splitlines()]
    for line in lines:
        model = Harnessed(str(AUSTEN), route=line["route"], numerics="numpy", max_length=512)
        metrics = evaluated(model, tmp_path, ["sums"])["sums"]["metrics"]
        assert line["scores"]["lm_eval"] == pytest.approx(metrics["acc,none"], abs=1e-12)
    assert {line["n"] for line in lines} == {ITEMS}
    refused = CliRunner().invoke(app, [*sweep[:5], f"lm_eval:{tmp_path / 'written.yaml'}", *words, str(tmp_path / "m.db")])
    assert "asks for generate_until" in str(refused.exception)
