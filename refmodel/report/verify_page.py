"""A proof as a report."""

from typing import TYPE_CHECKING

from .page import BAD, GOOD, NOTE, Line, Page, Section, Table
from .surgery import proof_verdict

if TYPE_CHECKING:
    from ..surgery.verify import Report

MARKS = {"ok": "", "WRONG": BAD, "not done": NOTE}


def verify_page(report: "Report") -> Page:
    """The page of a proof: its checks, which open what they found, and the seams."""
    from ..surgery.verify import MEANS

    checks = []
    for check in report.checks:
        says = f"not done: {check.skipped}" if check.skipped else MEANS[check.name]
        found = [Line([finding.where, finding.what], BAD) for finding in check.findings]
        inner = Table(f"Found by {check.name}", ["where", "what"], found, frozenset({"what"})) if found else None
        cells = [check.name, check.word, f"{check.compared:,}", str(len(found)), says]
        checks.append(Line(cells, MARKS[check.word], check.word, inner))
    texts = frozenset({"result", "what it says"})
    tables = [Table("Checks", ["check", "result", "compared", "found", "what it says"], checks, texts, brief=True)]
    seams = [
        Line([str(position), str(source), "ok" if right else "another block"], "" if right else BAD)
        for position, source, right in report.seams
    ]
    if seams:
        tables.append(Table("Seams", ["position", "source block", "found"], seams, frozenset({"found"})))
    wrong = [Line([finding.where, check, finding.what], BAD, check) for check, finding in report.findings]
    if wrong:
        columns = ["where", "check", "what"]
        tables.append(Table("Everything that was found", columns, wrong, frozenset(columns[1:]), searched=True, brief=True))
    facts = {"copy": report.out, "source": report.source, "route": report.route and f"{report.route} ({report.origin})"}
    facts |= {"by the hashes of its tensors": report.recovered}
    mark = BAD if report.status == 1 else NOTE if report.status else GOOD
    section = Section(
        "Checks", ["A line with findings opens them; those that change most of what is computed come first."], [], tables
    )
    named = {name: value for name, value in facts.items() if value}
    return Page(f"{report.out} against its source", proof_verdict(report), mark, report.notes, [section], named)
