"""A diagnosis as a report: the fault, what it explains, and every recorded tensor."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .diagnosis import last_line, named, of_others, of_unknown, place
from .page import BAD, GOOD, NOTE, Line, Lines, Page, Section, Series, Table, block_names, extreme, figure, jumps, tokens_in_words

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..faults.diagnosis.accepting import Answer
    from ..faults.diagnosis.diagnosis import Diagnosis
    from ..faults.diagnosis.judging import Judged
    from ..model.model import Model
    from ..model.route import Route

MARKS = {"healthy": GOOD, "fault": BAD, "unknown": BAD, "harness": NOTE}


def diagnosis_page(found: "Diagnosis", model: "Model", other: "Other", telling: "Sequence[int] | None" = None) -> Page:
    """The page of a diagnosis: what is wrong and what to do, the error of each block with and without it, and all tensors.

    telling  tokens that tell the answer from those that explain as much, if they were asked for
    """
    route = model.route(other.route)
    says = signs(found)
    says += of_unknown(found) if found.verdict == "unknown" else []
    sections = [depth(found, model, route), recorded(found.judged)]
    if found.answers:
        sections.insert(0, answered(found, telling))
    kept = [section for section in sections if section.pictures or section.tables]
    facts = {
        "model": f"{model.path.name}, {model.architecture}, {model.n_layer} blocks",
        "sha256 of the model": model.file.sha256(),
        "route": f"{route.canonical}, {len(route.layers)} positions",
        "theirs": other.who,
        "their arithmetic": found.arithmetic,
        "tokens": tokens_in_words(other.calls),
    }
    return Page(f"Diagnosis of {other.who}", last_line(found), MARKS[found.verdict], says, kept, facts)


def signs(found: "Diagnosis") -> list[str]:
    """What is remarkable about the dump, and what the numbers look like."""
    remarks = [f"{remark.code}: {remark.words}" for remark in found.remarks]
    return remarks + [f"{symptom.code}: {symptom.words}" for symptom in found.symptoms]


def answered(found: "Diagnosis", telling: "Sequence[int] | None") -> Section:
    """The faults that explain it, each with what to do, and the hypotheses side by side."""
    best = found.answers[0]
    believed = found.verdict != "unknown"
    faults = [
        Line([named((fault,)), fault.says, fault.fix, place(fault), fault.evidence], BAD)
        for fault in (best.faults if believed else ())
    ]
    columns = ["fault", "what goes wrong", "what to do", "done right", "seen before"]
    tables = [Table("What is wrong", columns, faults, frozenset(columns[1:]), brief=True)] if faults else []
    lines = [hypothesis(answer, BAD if believed and answer is best else "") for answer in found.answers]
    columns = ["hypothesis", "NMSE without it", "NMSE with it", "computed in", "how sure"]
    tables.append(Table("Hypotheses", columns, lines, frozenset(columns[3:]), brief=True))
    says = [" ".join(line.split()) for line in of_others(best, telling)] if believed else []
    return Section("The fault" if believed else "What was tried", says, [], tables)


def hypothesis(answer: "Answer", mark: str) -> Line:
    """The line of one hypothesis; it opens those that cannot be told from it."""
    cells = [named(answer.faults), figure(answer.before), figure(answer.after), answer.rounds, answer.sure]
    alike = [Line([named(faults), faults[0].says]) for faults in answer.same_as]
    inner = Table("Cannot be told from it", ["hypothesis", "what goes wrong"], alike, frozenset({"what goes wrong"}))
    return Line(cells, mark, "", inner if alike else None)


def depth(found: "Diagnosis", model: "Model", route: "Route") -> Section:
    """The worst error of each block without a fault, and with the one that is believed."""
    from ..compare.where import block_of

    at, none = block_names(route.layers), [math.nan] * len(route.layers)
    healthy, explains, faulty = list(none), list(none), list(none)
    for tap, nmse in found.judged.seen.nmse.items():
        block = block_of(tap)
        if block is not None and block < len(at):
            healthy[block] = max(nmse, healthy[block]) if healthy[block] == healthy[block] else nmse
            allowed = found.judged.allowed.get(tap, math.nan)
            explains[block] = max(allowed, explains[block]) if explains[block] == explains[block] else allowed
    for block, (_, after) in (found.answers[0].blocks if found.verdict == "fault" else {}).items():
        faulty[block] = after
    series = [Series("without a fault", healthy), Series("with the fault", faulty), Series("rounding explains", explains)]
    series = [one for one in series if any(math.isfinite(v) for v in one.values)]
    if not series:
        return Section("Error over depth", [])
    says = "; ".join(f"{one.name}: {extreme(at, one.values)}" for one in series)
    kinds = [model.kinds[layer] for layer in route.layers]
    picture = Lines("Error over depth", says, "position", "NMSE", at, series, kinds, jumps(route.layers))
    sentences = [
        "Each block starts from the other side's own numbers where those were recorded, so that it shows its own error only."
    ]
    return Section("Error over depth", sentences, [picture])


def recorded(judged: "Judged") -> Section:
    """Every recorded tensor against the healthy run."""
    wrong = set(judged.wrong)
    lines = []
    for tap, nmse in judged.seen.nmse.items():
        word = "wrong" if tap in wrong else "explained" if nmse else "equal"
        lines.append(Line([tap, figure(nmse), figure(judged.allowed.get(tap)), word], BAD if tap in wrong else "", word))
    columns = ["tensor", "NMSE without a fault", "rounding explains", "verdict"]
    table = Table("Every recorded tensor", columns, lines, frozenset({"verdict"}), searched=True, brief=True)
    return Section("Recorded tensors", [], [], [table] if lines else [])
