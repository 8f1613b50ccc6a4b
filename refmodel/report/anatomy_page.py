"""The anatomy of a model as a report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .page import NOTE, Heat, Line, Lines, Page, Section, Series, Table, extreme

if TYPE_CHECKING:
    from ..model.model import Model
    from ..sweep.anatomy import Anatomy


def depth_pictures(found: "Anatomy") -> list[Lines]:
    """Influence, and the chance of the final token, over depth."""
    at, kinds = [f"block {one.block}" for one in found.blocks], [one.kind for one in found.blocks]
    influence = [one.influence for one in found.blocks]
    chance = [one.chance for one in found.blocks]
    turns = Lines(
        "Influence", f"How much each block turns the stream: {extreme(at, influence)}.", "block", "1 − cosine", at,
        [Series("influence", influence)], kinds, log=False,
    )  # fmt: skip
    answer = Lines(
        "When the answer is there", f"The probability of {found.token!r}, seen through the head: {extreme(at, chance)}.", "block",
        "probability", at, [Series("chance", chance)], kinds, log=False,
    )  # fmt: skip
    return [turns, answer]


def windows_picture(found: "Anatomy") -> Heat:
    """The angle of each window."""
    n = len(found.blocks)
    angles = [[float(found.angles[i, j]) if i < j else float("nan") for j in range(1, n + 1)] for i in range(n)]
    starts, ends = [f"window from {i}" for i in range(n)], [f"to before {j}" for j in range(1, n + 1)]
    says = "How far the stream turns over each window; one that turns it little may be repeated or left out with little harm."
    return Heat("Angle of each window", says, "first block", "end", starts, ends, angles, "half turns", log=False)


def every_block(found: "Anatomy") -> Table:
    """A line for each block."""
    lines = []
    for one in found.blocks:
        kept = f"{one.decays[0]:.3f} to {one.decays[-1]:.3f}" if one.decays else "–"
        cells = [str(one.block), one.kind, f"{one.norm:.1f}", f"{one.influence:.4f}", str(one.rank), f"{one.chance:.3f}"]
        lines.append(Line([*cells, "–" if one.entropy is None else f"{one.entropy:.2f}", kept], "", one.kind))
    columns = ["block", "kind", "norm", "influence", "rank", "chance", "entropy", "state kept a token"]
    return Table("Every block", columns, lines, frozenset({"kind"}), searched=True, brief=True)


def anatomy_page(found: "Anatomy", model: "Model", ids: Sequence[int]) -> Page:
    """The page of an anatomy: influence and chance over depth, the angle of each window, and every block."""
    at, influence = [f"block {one.block}" for one in found.blocks], [one.influence for one in found.blocks]
    n = len(found.blocks)
    facts = {"model": f"{model.path.name}, {model.architecture}, {n} blocks", "sha256 of the model": model.file.sha256()}
    facts |= {"tokens": ", ".join(map(str, ids))}
    verdict = f"The model goes on with {found.token!r}; {extreme(at, influence)} turns the stream most"
    sections = [Section("Over depth", [], depth_pictures(found)), Section("Windows", [], [windows_picture(found)])]
    sections.append(Section("Blocks", [], [], [every_block(found)]))
    return Page(f"Anatomy of {model.path.name}", verdict.replace("largest", "influence"), NOTE, [], sections, facts)
