"""Options of pytest for the laws.

pytest loads this file wherever refmodel is installed; so it imports nothing, and adds options only to runs that name the laws:
`--pyargs refmodel.laws`, a path to them, or `-p refmodel.laws.plugin`.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

NAMED = re.compile(r"refmodel[./\\]laws\b")
ENGINE, EXAMPLES = "reference", 50  # what is not given


def asked_for(args: Iterable[str]) -> bool:
    """Whether the words of a run of pytest name the laws."""
    return any(NAMED.search(word) for word in args)


def pytest_load_initial_conftests(parser: "pytest.Parser", args: list[str]) -> None:
    """Add --engine and --examples, if this run is one of the laws."""
    if not asked_for(args):
        return
    group = parser.getgroup("refmodel.laws", "laws of the gated delta rule (--pyargs refmodel.laws)")
    group.addoption("--engine", default=ENGINE, metavar="FILE", help="An adapter of a program. Default: refmodel's own.")
    group.addoption("--examples", default=EXAMPLES, type=int, metavar="N", help="Random cases of each law.")
