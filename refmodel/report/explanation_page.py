"""The error budget as a section of a report."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .page import BAD, NOTE, Line, Section, Series, Shares, Table, figure

if TYPE_CHECKING:
    from ..compare.error_budget import Explanation


def budget_section(explanation: "Explanation", blocks: Sequence[str]) -> Section:
    """The shares of each kind of rounding in the distance to the truth, for every block's output and the logits."""
    budgets = [budget for budget in explanation.budgets if "@" not in budget.name]
    at = [place_of(budget.name, blocks) for budget in budgets]
    parts = list(budgets[0].parts)
    series = [Series(part, [budget.parts[part].share for budget in budgets]) for part in parts]
    last = ", ".join(f"{part} {100 * budgets[-1].parts[part].share:.1f} %" for part in parts)
    picture = Shares("Error budget", f"Of the distance of {at[-1]}: {last}.", "position", "share of the distance", at, series)
    lines = [
        Line(
            [budget.name, figure(budget.distance), *(f"{100 * part.share:.2f}" for part in budget.parts.values())],
            BAD if budget.parts[parts[-1]].nmse > 0 and not explanation.explained else "",
        )
        for budget in budgets
    ]
    table = Table("Error budget, in percent of the distance", ["tensor", "NMSE to truth", *parts], lines, brief=True)
    verdicts = explanation.verdicts()
    tokens = [
        Line([str(row.token), figure(row.nmse), figure(row.kl), figure(left), word.lower()], marked(word), word.lower())
        for row, left, word in zip(explanation.tokens, explanation.left, verdicts, strict=True)
    ]
    each = Table(
        "Logits against the truth",
        ["token of the call", "NMSE to truth", "KL, nats", "unexplained NMSE", "verdict"],
        tokens,
        frozenset({"verdict"}),
        searched=True,
    )
    sentences = [
        "The truth is the float64 pass. Each part is what one of llama.cpp's roundings adds to the distance from it; a share is "
        "negative where a part cancels others."
    ]
    if explanation.flip:
        sentences.append(f"Each operation is right; the runs part where {explanation.flip.describe()}.")
    return Section("Error budget", sentences, [picture], [table, each])


def place_of(tap: str, blocks: Sequence[str]) -> str:
    """The name of a block for the tap of its output; else the tap's own."""
    match = re.fullmatch(r"l_out-(\d+)", tap)
    return blocks[int(match[1])] if match else "logits"


def marked(word: str) -> str:
    """The mark of a token's verdict."""
    return {"UNEXPLAINED": BAD, "NEAR TIE": NOTE}.get(word, "")
