"""Where the time of a run went, as tables and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..numerics.limits import MachineLimits
    from ..speed.timing import Spent, Timing
from .tables import plain_table


def timing_tables(timing: "Timing") -> Iterator[Table | str]:
    """Two tables, by operation and by kind of block, and a line about the machine's limits, which are measured now."""
    from ..numerics.limits import measured

    limits = measured()
    yield spent_table("operation", timing.by_operation(), timing.total, limits)
    yield spent_table("by block", timing.by_place(), timing.total, limits)
    yield (
        f"{timing.total:.3f} s in all. Limit: the time to read the bytes at {limits.bytes / 1e9:.1f} GB/s or to multiply at "
        f"{limits.multiply_adds / 1e9:.0f} 8-bit multiply-adds a nanosecond, whichever is longer; both were measured just now, "
        "and what a cache holds may be read faster"
    )


def spent_table(title: str, rows: "Sequence[Spent]", total: float, limits: "MachineLimits") -> Table:
    """One table of what was spent.

    total   seconds of the run; a row's time is given as a percentage of it
    limits  of this machine
    """
    table = plain_table(title, "phase", "calls", "ms", "%", "MB", "GB/s", "multiply-adds/ns", "% of limit")
    for row in rows:
        share = row.share_of_limit(limits)
        moves = row.bytes and row.seconds
        table.add_row(
            row.name,
            row.phase,
            str(row.calls or ""),
            f"{row.seconds * 1e3:.2f}",
            f"{100 * row.seconds / total:.1f}" if total else "",
            f"{row.bytes / 1e6:.1f}" if moves else "",
            f"{row.bytes / row.seconds / 1e9:.1f}" if moves else "",
            f"{row.multiply_adds / row.seconds / 1e9:.1f}" if row.multiply_adds and row.seconds else "",
            "" if share is None else f"{100 * share:.0f}",
        )
    return table


def timing_json(timing: "Timing") -> dict[str, Any]:
    """The same for --json."""
    from ..numerics.limits import measured

    limits = measured()

    def rows(spent: "Sequence[Spent]") -> list[dict[str, Any]]:
        return [{**asdict(row), "share_of_limit": row.share_of_limit(limits)} for row in spent]

    return {
        "seconds": timing.total,
        "limits": asdict(limits),
        "operations": rows(timing.by_operation()),
        "blocks": rows(timing.by_place()),
    }
