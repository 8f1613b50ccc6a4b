"""Goldens, and how engines do against them: tables, lines and JSON. Nothing is computed here."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .diff import logit_lines
from .tables import finite, pairs, plain_table

if TYPE_CHECKING:
    from ..compare.golden import Golden
    from ..compare.golden_check import Checked
    from ..compare.golden_update import Change

WORDS = {True: "within", False: "out"}


def shown(golden: "Golden") -> Table:
    """What a golden is, a line for each thing."""
    said, engine = golden.said, golden.said["engine"]
    tokens = sum(map(len, golden.calls))
    where = ", ".join(filter(None, [engine["processor"], " ".join(engine["instructions"]), engine["c_library"]]))
    return pairs(
        {
            "model": f"{said['model']} ({said['architecture']}), sha256 {said['sha256'][:16]}…",
            "types": ", ".join(f"{count} {name}" for name, count in said["types"].items()),
            "route": said["route"],
            "tokens": f"{tokens} in {len(golden.calls)} call{'s' * (len(golden.calls) != 1)}: {shortened(golden.calls)}",
            "engine": engine["who"],
            "rounds": f"{engine['rounds']} (numerics {engine['numerics']})",
            "machine": where or "not known",
            "tensors": ", ".join(f"{name} {list(x.shape)}" for name, x in list(golden.arrays.items())[:4])
            + (f" and {len(golden.arrays) - 4} more" if len(golden.arrays) > 4 else ""),
            "logits of": rows_in_words(said["rows"]),
            "noise": "; ".join(f"{name} {worst(noise):.1e}" for name, noise in said["noise"].items()),
            "semantics": "; ".join(f"{name}: {value}" for name, value in said["semantics"].items() if isinstance(value, str)),
        }
    )


def shortened(calls: list[list[int]]) -> str:
    """Token ids in a few words."""
    text = " | ".join(" ".join(map(str, call)) for call in calls)
    return text if len(text) <= 60 else f"{text[:57]}..."


def rows_in_words(rows: Mapping[str, list[int]]) -> str:
    """Which tokens have logits."""
    return (
        "all tokens" if not rows else "; ".join(f"{tap}: {', '.join(map(str, tokens)) or 'none'}" for tap, tokens in rows.items())
    )


def worst(noise: Mapping[str, float]) -> float:
    """The largest noise of a tensor."""
    return max(noise.values(), default=0.0)


def golden_json(golden: "Golden") -> dict[str, Any]:
    """All that a golden says, and the sizes of its tensors, for --json."""
    found: dict[str, Any] = finite(
        {**golden.said, "shapes": {name: list(x.shape) for name, x in golden.arrays.items()}, "path": str(golden.path)}
    )
    return found


def checked_table(checked: "Checked", most: int = 20) -> Table:
    """A line for each recorded tensor: all that are out, and the first ones of the others."""
    table = plain_table("tensor", "shape", "NMSE", "allowed", "max |a-b|", "verdict")
    out = [row for row in checked.rows if not row.within]
    for row in [*out, *(row for row in checked.rows if row.within)][:most]:
        word = Text("within" if row.differ else "same bits", "green") if row.within else Text("OUT", "bold red")
        if row.problem:
            table.add_row(row.name, str(list(row.shape)), "", "", "", Text.assemble(word, f" {row.problem}"))
            continue
        figures = (f"{row.nmse:.1e}", f"{row.allowed:.1e}", f"{row.max_abs:.1e}")
        table.add_row(row.name, str(list(row.shape)), *figures, word)
    return table


def checked_lines(checked: "Checked") -> str:
    """The lines after the table: who was compared with whom, what was allowed and why, and the verdict."""
    golden = checked.golden
    lines = [f"{remark.code}: {remark.words}" for remark in checked.remarks]
    lines += [f"{checked.engine['who']}", f"against {golden.said['engine']['who']}"]
    lines += logit_lines(checked.logits) if checked.logits else []
    lines += [f"not in the run: {', '.join(checked.lacking[:4])}"] if checked.lacking else []
    return "\n".join([*lines, reason(checked), verdict(checked)])


def reason(checked: "Checked") -> str:
    """Why so much is allowed."""
    if checked.exact:
        return "allowed: nothing; both are llama.cpp's arithmetic with the same C library, and every bit is promised"
    mine, theirs = checked.golden.said["engine"]["rounds"], checked.rounds
    if theirs == "own":
        return f"allowed: the noise that was measured between two engines that round as {mine} does"
    return f"allowed: the noise that was measured of {mine}, and that of {theirs}"


def verdict(checked: "Checked") -> str:
    """The last line."""
    wrong = [row for row in checked.rows if not row.within]
    if not wrong:
        return "SAME BITS" if checked.same_bits else "WITHIN the recorded noise"
    row = wrong[0]
    why = row.problem or f"NMSE {row.nmse:.1e}, allowed {row.allowed:.1e}"
    would = f"; an engine that rounds as `{checked.would}` would be within: --rounds {checked.would}" if checked.would else ""
    return f"OUT: {len(wrong)} of {len(checked.rows)} tensors, first {row.name}: {why}{would}"


def checked_json(checked: "Checked", strict: bool) -> dict[str, Any]:
    """The whole check for --json. `verdict` is `within` or `out`; with `strict`, one other bit is out."""
    found: dict[str, Any] = finite(
        {
            "verdict": WORDS[checked.within and (checked.same_bits or not strict)],
            "golden": str(checked.golden.path),
            "against": checked.golden.said["engine"],
            "engine": dict(checked.engine),
            "rounds": checked.rounds,
            "exact": checked.exact,
            "same_bits": checked.same_bits,
            "would": checked.would,
            "remarks": [asdict(remark) for remark in checked.remarks],
            "lacking": list(checked.lacking),
            "rows": [{**asdict(row), "within": row.within} for row in checked.rows],
            "logits": [asdict(row) for row in checked.logits],
        }
    )
    return found


def change_lines(change: "Change") -> str:
    """What would change in a golden."""
    rows = [
        f"{row.name}: {row.problem or f'{row.differ} numbers differ, NMSE {row.nmse:.1e}, max {row.max_abs:.1e}'}"
        for row in change.rows
    ]
    return "\n".join([*change.words, *rows]) if change.any else "nothing would change"


def change_json(change: "Change", written: bool) -> dict[str, Any]:
    """The same for --json, and whether it was written."""
    found: dict[str, Any] = finite({"changed": change.words, "rows": [asdict(row) for row in change.rows], "written": written})
    return found
