"""The laws of the delta rule: our own engines keep them, each broken engine is found by its own law, and the plugin runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from broken_rules import BROKEN, GOOD
from hypothesis import HealthCheck, Phase, given, seed, settings
from shares import diagonal
from strategies import examples

from refmodel.errors import FileError
from refmodel.laws.cases import cases
from refmodel.laws.engine import OURS, Engine, engine_of, of_numerics
from refmodel.laws.laws import LAWS, Case
from refmodel.laws.plugin import asked_for

ADAPTERS = Path(__file__).parent / "adapters"


def breaks(engine: Engine, law: str, count: int) -> bool:
    """Whether one of so many cases breaks a law."""

    @seed(1)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases())
    def holds(case: Case) -> None:
        LAWS[law](engine, case)

    try:
        holds()
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(("law", "numerics"), diagonal(LAWS, OURS))
def test_our_own_engines_keep_the_laws(law, numerics):
    assert not breaks(of_numerics(OURS[numerics]), law, examples(4))


def test_every_law_has_an_engine_that_breaks_it():
    assert BROKEN.keys() == LAWS.keys()


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_engine_is_found_by_its_law_and_by_no_other(law):
    broken = BROKEN[law]
    assert breaks(broken.engine, law, 30), broken.what
    others = LAWS.keys() - broken.also - {law}
    assert not {other for other in others if breaks(broken.engine, other, 3)}, broken.what


@pytest.mark.parametrize("law", [law for law, broken in BROKEN.items() if broken.also])
def test_the_laws_that_also_find_it_do(law):
    broken = BROKEN[law]
    assert all(breaks(broken.engine, other, 30) for other in broken.also)


def test_what_is_no_adapter_is_named(tmp_path):
    with pytest.raises(FileError, match=r"--engine .*none\.py: no such file; give an adapter, or one of numpy, reference"):
        engine_of(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(FileError, match="has no function `rule`"):
        engine_of(str(tmp_path / "empty.py"))
    assert engine_of("numpy").rule(*Case(1, 3, 1, 2, 4, 5, 6, 3).arguments())[0].shape == (3, 2, 5)
    assert GOOD.conv


def under_pytest(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "refmodel.laws.plugin", "-p", "no:cacheprovider", "--pyargs"]
    return subprocess.run(
        [*command, "refmodel.laws", *words], capture_output=True, text=True, env={**os.environ, **environment}, timeout=600
    )


def test_the_plugin_runs_them_on_an_adapter(tmp_path):
    """A Python file with two functions; the second has a mistake."""
    (tmp_path / "mine.py").write_text(
        "from refmodel.laws.engine import engine_of\nrule = engine_of('numpy').rule\n"
        "def conv(x, w, before):\n    y, after = engine_of('numpy').conv(x, w, before)\n    return y, after[::-1].copy()\n"
    )
    done = under_pytest("--engine", str(tmp_path / "mine.py"), "--examples", "4")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 13 passed" in done.stdout
    assert "test_law[conv_recurrence]" in done.stdout
    assert "AssertionError: the memory of the convolution is off by" in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_transformers_keeps_the_laws(form, hf_python):
    """Both of its torch implementations, in a Python that has them."""
    environment = {"REFMODEL_HF_PYTHON": hf_python, "DELTA_RULE": form}
    done = under_pytest("--engine", str(ADAPTERS / "transformers.py"), "--examples", "20", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed, 2 skipped" in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_flash_linear_attention_keeps_the_laws(form, hf_python):
    """Both of its naive implementations, where that Python has fla-core."""
    has = "import importlib.util, sys; sys.exit(importlib.util.find_spec('fla') is None)"
    if subprocess.run([hf_python, "-c", has]).returncode:
        pytest.skip("pip install --no-deps fla-core einops, for the Python of REFMODEL_HF_PYTHON")
    environment = {"REFMODEL_HF_PYTHON": hf_python, "DELTA_RULE": form}
    done = under_pytest("--engine", str(ADAPTERS / "fla.py"), "--examples", "20", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed, 2 skipped" in done.stdout


@pytest.mark.parametrize("words", [["--pyargs", "refmodel.laws"], ["-p", "refmodel.laws.plugin"], ["refmodel/laws/test_laws.py"]])
def test_runs_that_name_the_laws_get_their_options(words):
    assert asked_for(words)


@pytest.mark.parametrize(
    "words", [[], ["tests"], ["--pyargs", "refmodel.testing"], ["-p", "refmodel.lawsuit"], ["my_refmodel/lawsuit"]]
)
def test_other_runs_do_not(words):
    assert not asked_for(words)


def test_a_project_may_have_options_of_these_names(tmp_path):
    """Its own conftest adds them; refmodel's plugin, which pytest loads everywhere, leaves them alone."""
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--engine', default='mine')\n    parser.addoption('--examples')\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(request):\n    assert request.config.getoption('--engine') == 'mine'\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
