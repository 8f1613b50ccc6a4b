"""What a file holds, as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..info.finding import Finding
    from ..info.summary import KindRow, LayerRow
from .tables import plain_table


def kinds(rows: "Sequence[KindRow]") -> Table:
    """A table of what the tensors of each kind of block are for."""
    table = plain_table("block", "tensor", "type", "rows, columns", "what it is")
    for i, column in enumerate(table.columns):
        column.justify, column.no_wrap = "right" if i == 3 else "left", i not in (2, 4)
    for i, row in enumerate(rows):
        if i and row.kind != rows[i - 1].kind:
            table.add_section()
        kind = "" if i and row.kind == rows[i - 1].kind else row.kind
        table.add_row(kind, row.tensor, row.types, ", ".join(map(str, row.shape)), row.meaning)
    return table


def layers(rows: "Sequence[LayerRow]", tensors: bool) -> Table:
    """A table of the blocks; with `tensors` also a line for each tensor."""
    table = plain_table("block", "kind", "MB", "types")
    for row in rows:
        table.add_row(str(row.index), row.kind, f"{row.bytes / 1e6:.2f}", row.types)
        if tensors:
            for line in row.tensors:
                table.add_row("", "", "", line)
    return table


def findings(found: "Sequence[Finding]") -> str:
    """What an audit found, four lines each; one line if nothing."""
    if not found:
        return "audit: the numbers in this file are as in a sound one"
    return "\n".join(
        f"! {f.code}{': ' + ', '.join(f.faults) if f.faults else ''}\n"
        f"    measured  {f.measured}\n    normal    {f.normal}\n    means     {f.means}"
        for f in found
    )
