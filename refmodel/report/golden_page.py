"""How an engine does against a golden, as a report."""

from typing import TYPE_CHECKING

from .golden import reason, rows_in_words, verdict
from .page import BAD, GOOD, NOTE, Line, Lines, Page, Section, Series, Table, extreme, figure, tokens_in_words

if TYPE_CHECKING:
    from ..compare.golden_check import Checked
    from ..compare.rows import Row


def golden_page(checked: "Checked", strict: bool = False) -> Page:
    """The page of a check: each tensor's error beside what is allowed, and the logits token by token.

    strict  one other bit is marked as bad
    """
    golden, said = checked.golden, checked.golden.said
    good = checked.within and (checked.same_bits or not strict)
    says = [reason(checked)]
    says += [f"not in the run: {', '.join(checked.lacking)}"] if checked.lacking else []
    facts = {
        "golden": golden.path.name,
        "recorded of": f"{said['model']}, {said['architecture']}",
        "sha256 of the model": said["sha256"],
        "recorded engine": said["engine"]["who"],
        "checked engine": checked.engine["who"],
        "it rounds as": checked.rounds,
        "route": said["route"],
        "logits of": rows_in_words(said["rows"]),
        "tokens": tokens_in_words(golden.calls),
    }
    sections = [tensors(checked), logits(checked)]
    title = f"{checked.engine['who']} against {golden.path.name}"
    kept = [section for section in sections if section.tables]
    return Page(title, verdict(checked), GOOD if good else BAD, says, kept, facts)


def tensors(checked: "Checked") -> Section:
    """The error of each recorded tensor, and what is allowed."""
    at = [row.name for row in checked.rows]
    series = [Series("error", [row.nmse for row in checked.rows]), Series("allowed", [row.allowed for row in checked.rows])]
    says = f"NMSE of each recorded tensor: {extreme(at, series[0].values)}. The second curve is what is allowed."
    picture = Lines("Error of each tensor", says, "tensor", "NMSE", at, series)
    columns = ["tensor", "shape", "NMSE", "allowed", "max |a−b|", "other bits", "verdict"]
    table = Table("Recorded tensors", columns, [tensor(row) for row in checked.rows], frozenset({"verdict"}), True, True)
    return Section("Tensors", [], [picture] if len(at) > 1 else [], [table])


def tensor(row: "Row") -> Line:
    """The line of one recorded tensor."""
    word = "out" if not row.within else "within" if row.differ else "same bits"
    cells = [row.name, "×".join(map(str, row.shape)) or "–", figure(row.nmse), figure(row.allowed), figure(row.max_abs)]
    said = f"{word}: {row.problem}" if row.problem else word
    return Line([*cells, f"{row.differ:,}", said], "" if row.within else BAD, word)


def logits(checked: "Checked") -> Section:
    """The logits, token by token."""
    several = " of its call" if len(checked.golden.calls) > 1 else ""
    at = [f"token {row.token}{several}" for row in checked.logits]
    lines = []
    for name, row in zip(at, checked.logits, strict=True):
        same = row.top1_ours == row.top1_theirs
        word, mark = ("near tie", NOTE) if row.near_tie else ("same first", "") if same else ("another first", BAD)
        best = [f"#{row.top1_theirs}", f"#{row.top1_ours}"]
        lines.append(Line([name, figure(row.nmse), figure(row.kl), *best, f"{row.margin:.2f}", word], mark, word))
    columns = ["after", "NMSE", "KL, nats", "the golden's first", "the engine's first", "margin", "first token"]
    table = Table("Logits of each token", columns, lines, frozenset({"first token"}), searched=True)
    series = [Series("NMSE", [row.nmse for row in checked.logits]), Series("KL", [row.kl for row in checked.logits])]
    says = "; ".join(f"{one.name}: {extreme(at, one.values)}" for one in series)
    picture = Lines("Logits over tokens", says, "token", "NMSE; KL in nats", at, series)
    return Section("Logits", [], [picture] if len(at) > 1 else [], [table] if lines else [])
