"""Tables that all reports share."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    pass


def plain_table(*columns: str) -> Table:
    """An empty table with these columns; all but the first are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def pairs(values: Mapping[str, str]) -> Table:
    """A table of name and value without a head."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in values.items():
        table.add_row(key, value)
    return table


def finite(value: Any) -> Any:
    """A value for JSON: NaN and infinities, which JSON does not have, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value
