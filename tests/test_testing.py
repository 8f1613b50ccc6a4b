"""The plugin for pytest, in a small project of somebody else's: made in a temporary folder, run by a pytest of its own."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_goldens import IDS, golden_of, run_of

import refmodel
from refmodel.errors import GoldenError
from refmodel.testing import assert_logits_match, assert_trace_match

ROOT = Path(__file__).parent.parent
ENGINE = '''
"""An engine that shares nothing with refmodel."""
from pathlib import Path
import straight

IDS = [5, 6, 7, 8, 9, 17, 41, 3]
MODEL = Path(__file__).parent / "m.gguf"

def run():
    return straight.forward(MODEL, IDS)
'''
SUITE = """
import pytest
from engine import IDS, run
from refmodel.testing import assert_logits_match, assert_trace_match

def test_logits(refmodel_golden):
    assert_logits_match(run()[0], refmodel_golden("m"), tokens=IDS)

def test_the_last_row(refmodel_golden):
    assert_logits_match(run()[0][-1], refmodel_golden("m.safetensors"))

def test_layers(refmodel_golden):
    logits, layers = run()
    trace = {f"model.layers.{i}": x for i, x in enumerate(layers)}
    assert_trace_match({**trace, "logits": logits}, refmodel_golden("m"))

def test_a_broken_head(refmodel_golden):
    logits = run()[0].copy()
    logits[3, 17] += 0.5
    assert_logits_match(logits, refmodel_golden("m"))

def test_a_broken_layer(refmodel_golden):
    layers = run()[1]
    assert_trace_match({"layer_1": layers[1] * 1.01}, refmodel_golden("m"), some=True)

def test_a_golden_that_is_not_there(refmodel_golden):
    refmodel_golden("other")

def test_other_tokens(refmodel_golden):
    assert_logits_match(run()[0], refmodel_golden("m"), tokens=[1, *IDS[1:]])
"""


def pytest_of(folder, *words):
    """A pytest in a folder. The plugin is loaded by its entry point, where refmodel is installed with it; else by its name."""
    installed = any(point.value == "refmodel.testing" for point in importlib.metadata.entry_points(group="pytest11"))
    named = [] if installed else ["-p", "refmodel.testing"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    env |= {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "pytest", *named, "-p", "no:cacheprovider", "-p", "no:xdist", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    model = refmodel.load(tiny.build(folder / "m.gguf", "llama", seed=2))
    (folder / "engine.py").write_text(ENGINE)
    (folder / "test_engine.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    goldens = folder / "goldens"
    goldens.mkdir()
    scratch = tmp_path_factory.mktemp("scratch")
    golden_of(model, scratch, other=run_of(model, scratch, calls=[IDS])).rename(goldens / "m.safetensors")
    return folder


def test_it_is_an_entry_point_of_pytest():
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert entries["refmodel"] == "refmodel.testing"


def test_the_suite_of_another_project(project):
    done = pytest_of(project, "--refmodel-golden", project / "goldens", "-rA", "-q")
    outcomes = {name: word for word, name in re.findall(r"^(PASSED|FAILED|ERROR) .*?::(\w+)", done.stdout, re.MULTILINE)}
    failing = {"test_a_broken_head", "test_a_broken_layer", "test_a_golden_that_is_not_there", "test_other_tokens"}
    assert {name for name, word in outcomes.items() if word != "PASSED"} == failing, done.stdout
    assert len(outcomes) == 7
    assert "logits differ from m.safetensors (m.gguf, refmodel" in done.stdout
    assert re.search(r"furthest: result_output\[3, 17\] is -?[\d.]+, expected", done.stdout)
    assert re.search(r"^E\s+3 +\S+ +\S+ +\d+ +\d+$", done.stdout, re.MULTILINE), "the row of that token comes first"
    assert re.search(r"^E\s+l_out-1 +\[8, 22\] +1\.0e-04 ", done.stdout, re.MULTILINE)
    assert "no such golden" in done.stdout
    assert "m.safetensors has [[5, 6" not in done.stdout
    assert "ran the tokens [1, 6, 7, 8, 9, 17, 41, 3], m.safetensors has [5, 6" in done.stdout
    assert "refmodel/testing.py" not in done.stdout, "a failure shows the project's own line, not ours"


def test_without_the_option_the_tests_are_skipped_with_the_reason(project):
    done = pytest_of(project, "-rs", "-q")
    assert done.returncode == 0
    assert re.search(r"SKIPPED \[\d\].*pytest --refmodel-golden DIR", done.stdout)


def test_it_costs_nothing_where_it_is_not_used(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import sys\ndef test_it():\n    assert 'refmodel.testing' in sys.modules\n"
        "    assert not {'numpy', 'numba', 'safetensors', 'typer', 'refmodel.errors'} & set(sys.modules)\n"
    )
    done = pytest_of(tmp_path, "-q")
    assert done.returncode == 0, done.stdout


def test_assertions_in_python(project, tmp_path):
    golden = project / "goldens" / "m.safetensors"
    model = refmodel.load(project / "m.gguf")
    logits = model.forward(IDS)
    assert_logits_match(logits, golden)
    assert_logits_match(logits[None], str(golden), rounds="bf16")
    with pytest.raises(AssertionError, match=r"shape \[8, 270\], theirs \[8, 271\]"):
        assert_logits_match(logits[:, :-1], golden)
    with pytest.raises(AssertionError, match=r"not finite: 1 of ours"):
        assert_logits_match(np.where(logits == logits.max(), np.nan, logits), golden)
    with pytest.raises(ValueError, match="rounds='f8'"):
        assert_logits_match(logits, golden, rounds="f8")
    with pytest.raises(GoldenError, match="has no logits of call 1"):
        assert_logits_match(logits, golden, call=1)
    with pytest.raises(AssertionError, match=r"foo: m\.safetensors has no such tensor"):
        assert_trace_match({"foo": logits}, golden)
    with pytest.raises(AssertionError, match="the trace lacks l_out-0"):
        assert_trace_match({"logits": logits}, golden)
    np.savez(tmp_path / "d.npz", logits=logits)
    assert_trace_match(tmp_path / "d.npz", golden, some=True)
