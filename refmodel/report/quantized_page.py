"""The comparison of two files of one model as a report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .page import GOOD, Line, Lines, Page, Section, Series, Table, extreme, figure, jumps

if TYPE_CHECKING:
    from ..compare.quantized import Trial
    from ..model.model import Model


def trial_page(done: "Trial", model: "Model", full: "Model", ids: Sequence[int]) -> Page:
    """The page of a comparison: the error that each position adds, and how it accumulates."""
    at = [f"block {step.source} at {step.position}" for step in done.steps]
    series = [
        Series("accumulated", [step.accumulated for step in done.steps]),
        Series("added by the block", [step.added for step in done.steps]),
    ]
    says = "; ".join(f"{one.name}: {extreme(at, one.values)}" for one in series)
    seams = jumps([step.source for step in done.steps])
    picture = Lines(
        "Error over depth", says, "position", "NMSE of the block's output", at, series, (), seams, done.repeats, "repeated blocks"
    )
    lines = [
        Line([str(step.position), str(step.source), str(step.visit + 1), figure(step.added), figure(step.accumulated)])
        for step in done.steps
    ]
    table = Table("Every position", ["position", "source block", "pass", "NMSE added", "NMSE accumulated"], lines, brief=True)
    *says_more, verdict = done.sentences()
    facts = {
        "file": model.path.name,
        "its sha256": model.file.sha256(),
        "compared with": full.path.name,
        "the other's sha256": full.file.sha256(),
        "route": done.route.canonical,
        "tokens": ", ".join(map(str, ids)),
    }
    section = Section("Error over depth", ["Both files run the same route in float32."], [picture], [table])
    title = f"{model.path.name} against {full.path.name}, {done.route.canonical}"
    return Page(title, verdict, GOOD, says_more, [section], facts)
