"""The comparison of two files of one model, as a table and as JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..compare.quantized import Trial
from .tables import plain_table


def trial(console: Console, done: "Trial") -> None:
    """Print the errors position by position, then the summary."""
    table = plain_table("position", "source block", "pass", "NMSE added", "NMSE accumulated")
    for step in done.steps:
        numbers = [str(step.source), str(step.visit + 1), f"{step.added:.1e}", f"{step.accumulated:.1e}"]
        table.add_row(str(step.position), *numbers, style="bold" if step.visit else None)
    console.print(table)
    for line in done.sentences():
        console.print(line, markup=False, soft_wrap=True)


def trial_json(done: "Trial") -> dict[str, Any]:
    """The same for --json."""
    return {
        "route": done.route.canonical,
        "steps": [asdict(step) for step in done.steps],
        "logits_nmse": done.logits,
        "unrouted_logits_nmse": done.unrouted,
        "amplification": done.amplification,
        "repeats": [{"first": a, "last": b, "growth": done.growth(a, b) if a else None} for a, b in done.repeats],
        "sentences": done.sentences(),
    }
