"""A diagnosis in words, and as JSON. Nothing is computed here."""

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..faults.diagnosis.accepting import Answer
    from ..faults.diagnosis.diagnosis import Diagnosis
    from ..faults.fault import Fault

SHOWN = 6  # blocks whose residual is shown


def in_words(found: "Diagnosis", telling: "Sequence[int] | None") -> str:
    """A diagnosis for a reader: a sentence, the evidence, our code, the thread, how sure it is."""
    lines = [f"{remark.code}: {remark.words}" for remark in found.remarks]
    lines += [f"{symptom.code}: {symptom.words}" for symptom in found.symptoms]
    if found.answers and found.verdict == "fault":
        lines += of_answer(found.answers[0], found)
        lines += of_others(found.answers[0], telling)
    elif found.verdict == "unknown":
        lines += of_unknown(found)
    elif found.verdict == "harness" and found.answers:
        lines += [f"{named((fault,))}: {fault.says} {fault.fix}" for fault in found.answers[0].faults]
    return "\n".join([*lines, last_line(found)])


def of_answer(answer: "Answer", found: "Diagnosis") -> list[str]:
    """The lines on the answer that is believed."""
    lines = []
    for fault in answer.faults:
        lines += [
            f"{fault.id} {fault.name}: {fault.says}",
            f"  what to do    {fault.fix}",
            f"  done right    {place(fault)}",
            f"  seen before   {fault.evidence}",
        ]
    lines.append(f"  evidence      NMSE {answer.before:.1e} without it, {answer.after:.1e} with it, computed in {answer.rounds}")
    worst = sorted(answer.blocks.items(), key=lambda item: -item[1][0])[:SHOWN]
    if worst:
        by_block = ", ".join(f"{block}: {before:.0e} -> {after:.0e}" for block, (before, after) in sorted(worst))
        lines.append(f"  by block      {by_block}")
    lines.append(f"  how sure      {answer.sure}")
    return lines


def of_others(answer: "Answer", telling: "Sequence[int] | None") -> list[str]:
    """The lines on faults that this input cannot tell from the answer."""
    lines = [f"  or            {named(faults)}" for faults in answer.same_as]
    if telling is not None:
        lines.append(
            f"  tell apart    --tokens {','.join(map(str, telling))}" if telling else "  tell apart    no tokens were found"
        )
    return lines


def of_unknown(found: "Diagnosis") -> list[str]:
    """The lines on something that no fault of the library explains."""
    where = found.located
    if where is None:
        return []
    block = "outside of blocks" if where.block is None else f"in block {where.block}"
    operation = f", made by {where.operation}" if where.operation else ""
    relation = f"relation: {where.relation}" if where.relation else "relation: none that is simple holds"
    return [f"first wrong: {where.tap}, {block}{operation}", relation]


def last_line(found: "Diagnosis") -> str:
    """The verdict."""
    words = {
        "fault": "FAULT: ",
        "healthy": "HEALTHY: what differs is rounding",
        "unknown": "UNKNOWN: no fault of the library, and no pair, explains it",
        "harness": "HARNESS: the recording is of something else than was asked for; correct that first",
    }[found.verdict]
    if found.verdict == "fault":
        return words + named(found.answers[0].faults)
    return f"{words}, {found.arithmetic}" if found.verdict == "healthy" else words


def named(faults: "Sequence[Fault]") -> str:
    """Faults by number and name."""
    return " and ".join(f"{fault.id} {fault.name}" if fault.id != fault.name else fault.id for fault in faults)


def place(fault: "Fault") -> str:
    """The line of refmodel that does right what a fault does wrong: `refmodel/ops/rope.py:42 rope`."""
    module, _, name = fault.right.partition(":")
    home: Any = import_module(module)
    thing = home
    for part in name.split(".") if name else ():
        thing = getattr(thing, part, home)
    try:
        _, line = inspect.getsourcelines(thing)
    except (TypeError, OSError):
        line = 1
    path = Path(*module.split(".")).with_suffix(".py")
    return f"{path}:{max(line, 1)} {name}"


def as_json(found: "Diagnosis", telling: "Sequence[int] | None") -> dict[str, Any]:
    """The whole diagnosis for --json."""
    where = found.located
    return {
        "verdict": found.verdict,
        "hypotheses": [of_json(answer) for answer in found.answers],
        "block": where.block if where else None,
        "operation": where.operation if where else None,
        "tap": where.tap if where else None,
        "wrong_blocks": list(where.blocks) if where else [],
        "relation": str(where.relation) if where and where.relation else None,
        "arithmetic": found.arithmetic,
        "symptoms": [asdict(symptom) for symptom in found.symptoms],
        "remarks": [asdict(remark) for remark in found.remarks],
        "suggest": list(telling) if telling is not None else None,
    }


def of_json(answer: "Answer") -> dict[str, Any]:
    """One hypothesis for --json."""
    own = [fault.id for fault in answer.faults]
    others = ["+".join(fault.id for fault in faults) for faults in answer.same_as]
    return {
        "ids": own,
        "names": [fault.name for fault in answer.faults],
        "says": [fault.says for fault in answer.faults],
        "fix": [fault.fix for fault in answer.faults],
        "right": [fault.right for fault in answer.faults],
        "evidence": [fault.evidence for fault in answer.faults],
        "same_as": [other for other in dict.fromkeys(others) if other != "+".join(own)],
        "same_as_names": ["+".join(fault.name for fault in faults) for faults in answer.same_as],
        "residual": answer.after,
        "residual_before": answer.before,
        "blocks": {str(block): list(both) for block, both in answer.blocks.items()},
        "sure": answer.sure,
    }
