"""Rows of a difference and their verdict, as a table, as lines and as JSON. Nothing is computed here."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from .tables import finite, plain_table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..compare.diff import Diff
    from ..compare.other_side import Other
    from ..compare.rows import LogitRow, Row
    from ..compare.verdict import Verdict
    from ..model.model import Model

MOST = 20  # wrong rows that are shown
# What --json calls the arithmetic of the other side where it is one of ours: as the classes of rounding are called
PRECISION = {"reference": "float32", "numpy": "float32", "oracle": "float64"}
JSON_WORDS = {"equal": "within", "explained": "explained", "wrong": "out"}


def cells(row: "Row", judged: "Row | None") -> list[str | Text]:
    """The cells of one line: the figures of the run, and how the operation does from the other side's inputs (`judged`)."""
    explained = Text("not judged") if judged is None else Text("explained", "green") if judged.within else Text("WRONG", "bold red")
    word = explained if row.differ or (judged and not judged.within) else Text("same bits", "green")
    if row.problem:
        return [row.name, "", "", "", "", Text.assemble(word, f" {row.problem}")]
    return [
        row.name,
        str(list(row.shape)),
        f"{row.nmse:.1e}",
        f"{row.nmse_var:.1e}",
        f"{row.max_abs:.1e}",
        word,
    ]


def chosen_rows(result: "Diff", verdict: "Verdict", every: bool) -> "list[Row]":
    """The rows to show: all, or those of the first call that sum up a block or the head, and the first twenty wrong ones."""
    if every:
        return result.rows
    ends = ("l_out", "result_norm", "result_output")
    wrong = {row.name for row in [row for row in verdict.rows.values() if not row.within][:MOST]}
    return [row for row in result.rows if row.name in wrong or (row.name.startswith(ends) and "@" not in row.name)]


def diff_table(result: "Diff", verdict: "Verdict", every: bool) -> Table:
    """The comparison as a table, a row for each tensor."""
    table = plain_table("tensor", "shape", "NMSE", "NMSE (var)", "max |a-b|", "verdict")
    for row in chosen_rows(result, verdict, every):
        table.add_row(*cells(row, verdict.rows.get(row.name)))
    return table


def diff_headline(result: "Diff", verdict: "Verdict", other: "Other", numerics: str, model: "Model") -> str:
    """The lines after the table: what was compared, and the result."""
    compared = [row for row in result.rows if not row.problem]
    rest = "the others only repeat or move numbers (golden/names gives a reason for each)"
    lines = [
        *(f"{remark.code}: {remark.words}" for remark in other.remarks),
        f"{numerics} against {other.who}",
        f"compared {len(compared)} of {other.emitted} {'arrays' if other.places else f'nodes; {rest}'}",
        f"bit for bit equal: {sum(not row.differ for row in compared)} of {len(compared)}",
        *logit_lines(result.logits),
        *overflow_lines(result.rows),
        *unknown_lines(other),
        *dump_lines(result, verdict, other, model),
        *(f"not reached: {words}" for words in out_of_reach(other, model)),
        verdict_line(verdict, other),
    ]
    return "\n".join(lines)


def dump_lines(result: "Diff", verdict: "Verdict", other: "Other", model: "Model") -> list[str]:
    """What is reported of another program's dump only: what it rounds, and where it is wrong."""
    from ..compare.where import by_position, in_words

    if not other.places and not verdict.rounds:
        return []
    lines = [f"the other side computes in {verdict.rounds}"] if verdict.rounds else []
    if (step := max((2 * float(np.max(view.step)) for view in other.views.values()), default=0.0)) > 0:
        lines.append(f"its numbers are written in steps of up to {step:.1e}, which is allowed for")
    if verdict.first:
        lines += [f"wrong {in_words(verdict, model, other)}", *by_position(result.logits)]
    return lines


def out_of_reach(other: "Other", model: "Model") -> list[str]:
    """What the other side's tokens are too few to test, a phrase each."""
    from ..compare.reach import unreached

    return unreached(model, other.calls, chunked=not other.operations)


def unknown_lines(other: "Other") -> list[str]:
    """One line for the operations that are judged by measured rounding, because the other side's order of sums is unknown."""
    lines = []
    if names := sorted(other.unknown - {""}):
        lines += [f"bits not known of {', '.join(names)}: judged by the rounding that was measured on this input"]
    if other.strangers:
        first = ", ".join(other.strangers[:3]) + ", ..." * (len(other.strangers) > 3)
        lines += [
            f"{len(other.strangers)} nodes are not known here and were left out: {first}",
            f"{len(other.unjudged)} tensors are computed from them, and not judged",
        ]
    return lines


def verdict_line(verdict: "Verdict", other: "Other") -> str:
    """The last line: the verdict."""
    if verdict.first:
        return f"WRONG, first at {located(verdict.first, other)}"
    overflow = any(row.holes for row in verdict.rows.values())
    each = "every operation that was judged" if other.unjudged or overflow else "every operation"
    if verdict.word == "equal":
        return f"EQUAL: {each} gives the same bits from the same inputs"
    if other.places and all(tap.startswith("result_output") for tap in other.taps):
        return (
            "EXPLAINED: rounding makes the logits differ as much; a fault that changes them less is not seen without hidden "
            "states, but `refmodel diagnose` may name it"
        )
    return f"EXPLAINED: {each} is right; what differs is rounding, most of all in {', '.join(verdict.rounded[:3])}"


def located(row: "Row", other: "Other") -> str:
    """A wrong row: its name, llama.cpp's operation if the record has it, and what is wrong."""
    operation = f" ({other.operations[row.name]})" if row.name in other.operations else ""
    return f"{row.name}{operation}: {wrong_because(row)}"


def faults(verdict: "Verdict", other: "Other", most: int = 4) -> str:
    """How many operations are wrong, and a line for each, at most `most` of them."""
    wrong = [row for row in verdict.rows.values() if not row.within]
    shown = [f"  {located(row, other)}" for row in wrong[:most]] + ["  ..."] * (len(wrong) > most)
    head = f"each operation started from llama.cpp's own numbers: {len(wrong)} of {len(verdict.rows)} are wrong"
    return "\n".join([head, *shown])


def wrong_because(row: "Row") -> str:
    """Why a row is wrong, in words."""
    if row.problem:
        return row.problem
    return f"NMSE {row.nmse:.1e} from the same inputs; rounding explains at most {row.allowed:.0e}"


def logit_lines(rows: "Sequence[LogitRow]") -> list[str]:
    """How the logits of each token compare."""
    if not rows:
        return ["logits were not compared"]
    decided = [row for row in rows if not row.near_tie]
    agree = sum(row.top1_ours == row.top1_theirs for row in decided)
    worst = max(rows, key=lambda row: row.kl)
    return [
        f"logits: largest NMSE {max(row.nmse for row in rows):.1e}, largest KL {worst.kl:.1e} nats (token {worst.token}); "
        f"top-1 agrees at {agree} of {len(decided)} tokens, {len(rows) - len(decided)} near ties left out"
    ]


def overflow_lines(rows: "Sequence[Row]") -> list[str]:
    """One line if numbers are not finite, and the same on both sides: where that begins, and what it means."""
    first = next((row for row in rows if row.holes), None)
    if first is None:
        return []
    return [
        f"not finite on both sides alike: {first.holes:,} numbers of {first.name}, and what is computed from them; the model "
        "overflows here, and operations that start from such numbers are not judged"
    ]


def diff_json(result: "Diff", verdict: "Verdict", other: "Other", numerics: str, model: "Model") -> dict[str, Any]:
    """The whole comparison for --json. `rows` are of the run; `operations` start from the other side's inputs."""
    from ..compare.where import first, wrong_blocks

    document = {
        "verdict": JSON_WORDS[verdict.word],
        "first": first(verdict, model, other),
        "wrong_blocks": wrong_blocks(verdict),
        "numerics": numerics,
        "arithmetic": verdict.rounds or PRECISION.get(verdict.arithmetic.name, verdict.arithmetic.name),
        "remarks": [asdict(remark) for remark in other.remarks],
        "map": dict(other.places),
        "unreached": out_of_reach(other, model),
        "unknown": sorted(other.unknown - {""}),
        "against": other.who,
        "compared": sum(not row.problem for row in result.rows),
        "emitted": other.emitted,
        "left_out": dict(other.left_out),
        "not_known": list(other.strangers),
        "not_judged": sorted(other.unjudged),
        "rows": [{**asdict(row), "within": verdict.is_right(row.name)} for row in result.rows],
        "operations": [{**asdict(row), "within": row.within} for row in verdict.rows.values()],
        "logits": [asdict(row) for row in result.logits],
    }
    found: dict[str, Any] = finite(document)
    return found


def nothing_json(other: "Other") -> dict[str, Any]:
    """For --json where nothing could be compared: no verdict, and why."""
    remarks = [asdict(remark) for remark in other.remarks]
    why = {"code": "nothing-compared", "words": f"none of its {other.emitted} arrays is a tap of this model's pass"}
    return {"verdict": None, "first": None, "arithmetic": None, "remarks": [why, *remarks], "compared": 0, "emitted": other.emitted}
