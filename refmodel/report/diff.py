"""Rows -> rich tables and JSON. Nothing is computed here."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..compare.diff import Diff
    from ..compare.other_side import Other
    from ..compare.rows import LogitRow, Row
from .tables import plain_table


def row_cells(row: "Row") -> list[str]:
    verdict = "[green]ok[/]" if row.within else "[bold red]OUT[/]"
    if row.problem:
        return [escape(row.name), "", "", "", "", verdict + " " + escape(row.problem)]
    return [
        escape(row.name),
        str(list(row.shape)),
        f"{row.nmse:.1e}",
        f"{row.nmse_var:.1e}",
        f"{row.max_abs:.1e}",
        verdict,
    ]


def chosen_rows(result: "Diff", every: bool) -> "list[Row]":
    """All rows; or, of the first call, one for each block and the head, and those out of tolerance (the first twenty)."""
    if every:
        return result.rows
    ends = ("l_out", "result_norm", "result_output")
    wrong = [row for row in result.rows if not row.within][:20]
    return [row for row in result.rows if row in wrong or (row.name.startswith(ends) and "@" not in row.name)]


def diff_table(result: "Diff", every: bool) -> Table:
    table = plain_table("tensor", "shape", "NMSE", "NMSE (var)", "max |a-b|", "verdict")
    for row in chosen_rows(result, every):
        table.add_row(*row_cells(row))
    return table


def diff_headline(result: "Diff", other: "Other", numerics: str) -> str:
    first, t = result.first_wrong, result.tolerance
    compared = [row for row in result.rows if not row.problem]
    worst = max(compared, key=lambda row: row.nmse, default=None)
    lines = [f"{numerics} against {other.who}"]
    lines.append(
        f"compared {len(compared)} of {other.emitted} nodes; the others only repeat or move numbers "
        "(golden/names gives a reason for each)"
    )
    lines.append(f"bit for bit equal: {sum(not row.differ for row in compared)} of {len(compared)}")
    if worst:
        lines.append(f"largest NMSE {worst.nmse:.1e} at {worst.name}; allowed {t.tensors:.0e}, logits {t.logits:.0e}: {t.reason}")
    lines += logit_lines(result.logits)
    lines.append("WITHIN TOLERANCE" if first is None else f"OUT OF TOLERANCE, first at {located(first, other)}")
    return "\n".join(lines)


def located(row: "Row", other: "Other") -> str:
    """A wrong row's name, llama.cpp's operation behind it where the record has it, and what is wrong."""
    operation = f" ({other.operations[row.name]})" if row.name in other.operations else ""
    return f"{row.name}{operation}: {wrong_because(row)}"


def faults(result: "Diff", other: "Other", most: int = 4) -> str:
    """The wrong rows of a diff in which every operation started from the other side's numbers: the wrong operations."""
    wrong = [row for row in result.rows if not row.within]
    shown = [f"  {located(row, other)}" for row in wrong[:most]] + ["  ..."] * (len(wrong) > most)
    head = f"each operation given llama.cpp's own inputs (--anchor-nodes): {len(wrong)} of {len(result.rows)} tensors are wrong"
    return "\n".join([head, *shown])


def wrong_because(row: "Row") -> str:
    return row.problem or f"NMSE {row.nmse:.1e}, allowed {row.allowed:.0e}"


def logit_lines(rows: "Sequence[LogitRow]") -> list[str]:
    if not rows:
        return ["logits were not compared"]
    decided = [row for row in rows if not row.near_tie]
    agree = sum(row.top1_ours == row.top1_theirs for row in decided)
    worst = max(rows, key=lambda row: row.kl)
    return [
        f"logits: largest NMSE {max(row.nmse for row in rows):.1e}, largest KL {worst.kl:.1e} nats (token {worst.token}); "
        f"top-1 agrees at {agree} of {len(decided)} tokens, {len(rows) - len(decided)} near ties left out"
    ]


def diff_json(result: "Diff", other: "Other", numerics: str) -> dict[str, Any]:
    first = result.first_wrong
    return {
        "verdict": "within" if first is None else "out",
        "first": first and first.name,
        "numerics": numerics,
        "against": other.who,
        "compared": sum(not row.problem for row in result.rows),
        "emitted": other.emitted,
        "left_out": dict(other.left_out),
        "tolerance": asdict(result.tolerance),
        "rows": [{**asdict(row), "within": row.within} for row in result.rows],
        "logits": [asdict(row) for row in result.logits],
    }
