"""Options of pytest for the laws; pytest loads this file wherever refmodel is installed, so that it imports nothing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: "pytest.Parser") -> None:
    """Add --engine and --examples."""
    group = parser.getgroup("refmodel.laws", "laws of the gated delta rule (--pyargs refmodel.laws)")
    group.addoption("--engine", default="reference", metavar="FILE", help="An adapter of a program. Default: refmodel's own.")
    group.addoption("--examples", default=50, type=int, metavar="N", help="Random cases of each law.")
