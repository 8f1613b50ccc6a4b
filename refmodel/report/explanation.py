"""An error budget as a table, as lines and as JSON."""

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..compare.error_budget import Explanation
    from ..compare.other_side import Other
from .diff import wrong_because
from .tables import plain_table


def explanation_table(explanation: "Explanation", every: bool) -> Table:
    """The error budget as a table: shares of the distance in percent, for the outputs of blocks and the logits.

    every  of all calls, not only the first
    """
    parts = list(explanation.budgets[0].parts)
    table = plain_table("tensor", "NMSE to truth", *(f"{part} %" for part in parts), "unexplained NMSE")
    for budget in explanation.budgets:
        if every or "@" not in budget.name:
            shares = [f"{100 * part.share:.2f}" for part in budget.parts.values()]
            table.add_row(budget.name, f"{budget.distance:.1e}", *shares, f"{budget.parts[parts[-1]].nmse:.1e}")
    return table


def explanation_headline(explanation: "Explanation", other: "Other") -> str:
    """The lines above the table: who is compared, what is left unexplained, near ties, and the verdict."""
    verdicts = explanation.verdicts()
    ties = [row.token for row, verdict in zip(explanation.tokens, verdicts, strict=True) if verdict == "NEAR TIE"]
    lines = [
        f"{other.who} against the truth (float64)",
        f"median unexplained NMSE of a token's logits {median(explanation.left):.1e}",
    ]
    if ties:
        lines.append(f"NEAR TIE at tokens {', '.join(map(str, ties))}: rounding decides which token is best")
    if explanation.flip:
        lines.append(f"each operation is right; the runs part where {explanation.flip.describe()}")
    first = explanation.first
    lines.append("EXPLAINED" if first is None else f"UNEXPLAINED, first at {first.name}: {wrong_because(first)}")
    return "\n".join(lines)


def explanation_json(explanation: "Explanation", other: "Other") -> dict[str, Any]:
    """The whole error budget for --json."""
    first, flip = explanation.first, explanation.flip
    return {
        "verdict": "EXPLAINED" if explanation.explained else "UNEXPLAINED",
        "first": first and first.name,
        "against": other.who,
        "budgets": [asdict(budget) for budget in explanation.budgets],
        "tokens": [
            {**asdict(row), "unexplained": left, "verdict": verdict}
            for row, left, verdict in zip(explanation.tokens, explanation.left, explanation.verdicts(), strict=True)
        ],
        "flip": flip and asdict(flip),
    }
