"""Values as a notebook shows them: small pages of HTML, from the same records and templates as the reports."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .anatomy_page import depth_pictures, every_block
from .diagnosis import last_line, of_unknown
from .diagnosis_page import MARKS, answered, recorded, signs
from .diff_page import tap_line
from .html import environment
from .page import GOOD, NOTE, Line, Page, Section, Table, extreme, figure, jumps

if TYPE_CHECKING:
    from ..compare.diff import Diff
    from ..faults.diagnosis.diagnosis import Diagnosis
    from ..model.model import Model
    from ..model.route import Route
    from ..sweep.anatomy import Anatomy
    from ..sweep.results import Results

MOST = 25  # lines of a table that are shown
ENDS = ("l_out-", "result_")  # the taps of a difference that sum up a block, or the head


def card(value: object) -> str:
    """The HTML of a value of one of the classes in CARDS. ImportError without jinja2 or matplotlib."""
    made = CARDS[type(value).__name__](value)
    return environment().get_template("card.html").render(page=made, most=MOST)


def of_route(route: "Route") -> Page:
    """A route: its blocks in order, and where it jumps."""
    seams = jumps(route.layers)
    order = " ".join(f"| {block}" if p in seams else str(block) for p, block in enumerate(route.layers))
    facts = {"positions": str(len(route.layers)), "blocks of the model": str(route.n_layer), "in order": order}
    says = [] if route.is_identity else [f"| marks a seam: {len(seams)} of them"]
    return Page("Route", route.canonical, NOTE, says, [], facts)


def of_model(model: "Model") -> Page:
    """A model: what it is, and its hyperparameters."""
    kinds = [f"{model.kinds.count(kind)} {kind}" for kind in dict.fromkeys(model.kinds)]
    facts = {
        "file": str(model.path),
        "architecture": model.architecture,
        "blocks": f"{model.n_layer}: {', '.join(kinds)}",
        "vocabulary": f"{model.n_vocab:,} tokens",
        "tensors": f"{len(model.file.tensors):,}",
    }
    values = {name: value for name, value in vars(model.hp).items() if isinstance(value, int | float | str) and value}
    lines = [Line([name, f"{value:,}" if isinstance(value, int) else str(value)]) for name, value in values.items()]
    return Page(
        "Model", model.path.name, NOTE, [], [Section("", [], [], [Table("Hyperparameters", ["name", "value"], lines)])], facts
    )


def of_diff(found: "Diff") -> Page:
    """A difference: how many tensors have the same bits, the largest error, and the rows that sum up each block."""
    known = [row for row in found.rows if not row.problem]
    same = sum(not row.differ for row in known)
    worst = extreme([row.name for row in known], [row.nmse for row in known])
    says = [f"NMSE of the run: {worst}", *[f"not compared: {row.name}: {row.problem}" for row in found.rows if row.problem][:3]]
    if found.logits:
        says.append(f"logits: largest NMSE {figure(max(row.nmse for row in found.logits))}")
    ends = [row for row in known if row.name.startswith(ENDS)] or known
    columns = ["tensor", "shape", "NMSE alone", "NMSE in the run", "max |a−b|", "cosine", "other bits", "verdict"]
    shown = [Line([c for n, c in enumerate(tap_line(row, {}).cells) if n not in (2, 7)]) for row in ends]
    table = Table("Tensors", [column for n, column in enumerate(columns) if n not in (2, 7)], shown)
    verdict = f"{same} of {len(known)} tensors have the same bits"
    return Page("Difference", verdict, GOOD if same == len(known) else NOTE, says, [Section("", [], [], [table])])


def of_anatomy(found: "Anatomy") -> Page:
    """An anatomy: how much each block turns the stream, and every block."""
    verdict = f"The model goes on with {found.token!r}"
    return Page("Anatomy", verdict, NOTE, [], [Section("", [], depth_pictures(found)[:1], [every_block(found)])])


def of_diagnosis(found: "Diagnosis") -> Page:
    """A diagnosis: the verdict, what to do, and the recorded tensors."""
    says = signs(found)
    says += of_unknown(found) if found.verdict == "unknown" else []
    sections = [answered(found, None)] if found.answers else []
    return Page("Diagnosis", last_line(found), MARKS[found.verdict], says, [*sections, recorded(found.judged)])


def of_results(found: "Results") -> Page:
    """A sweep: the verdict, and its routes, the best first."""
    from .sweep_page import sweep_page

    made = sweep_page(found, found.rows, next(iter(found.about.probes)))
    return Page("Sweep", made.verdict, made.mark, made.says, made.sections, made.facts)


CARDS: dict[str, Callable[[Any], Page]] = {
    "Anatomy": of_anatomy,
    "Diagnosis": of_diagnosis,
    "Diff": of_diff,
    "Model": of_model,
    "Results": of_results,
    "Route": of_route,
}
