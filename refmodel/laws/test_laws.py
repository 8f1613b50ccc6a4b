"""The laws as tests, for `pytest --pyargs refmodel.laws --engine my_adapter.py`."""

import pytest
from hypothesis import HealthCheck, given, settings

from .cases import cases
from .engine import Engine, engine_of
from .laws import LAWS, Case
from .plugin import ENGINE, EXAMPLES


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine that --engine names."""
    return engine_of(request.config.getoption("--engine", ENGINE))


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str, engine: Engine, request: pytest.FixtureRequest) -> None:
    """One law on random cases; Hypothesis shrinks the one that breaks it."""
    if law.startswith("conv") and engine.conv is None:
        pytest.skip("the adapter has no function `conv`")

    @settings(
        max_examples=request.config.getoption("--examples", EXAMPLES),
        deadline=None,  # a kernel may be compiled
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(case=cases())
    def holds(case: Case) -> None:
        LAWS[law](engine, case)

    holds()
