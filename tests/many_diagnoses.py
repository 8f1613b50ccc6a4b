"""How often is a fault named? Faults are put into engines, and `diagnose` sees only what they wrote. Run by hand:

    python tests/many_diagnoses.py OUT.jsonl --count 500 [--what singles|pairs|healthy|unknown] [--seed 0]

A case is a model (random ones of every architecture in three types, and a trained one), an engine that shares no arithmetic with
what diagnoses it, a fault, or two, or none, or one that the library does not have, what the engine wrote of its run (everything,
hidden states, logits of all tokens or the last, log-probabilities of the likeliest, greedy tokens), and noise. A fault that changes
nothing there beyond rounding is counted apart. OUT has one line a case; a run with the same OUT goes on where it ended.
"""

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnosing import EVIDENCE, dumped, rounded, written
from small_faults import FAULTS as UNKNOWN
from small_faults import Engine as Sick

import refmodel
from refmodel.errors import DumpError
from refmodel.faults.diagnosis.diagnosis import Diagnosis, diagnose
from refmodel.faults.fault import Engine, Fault, with_all
from refmodel.faults.library import FAULTS
from refmodel.machine.threads import use
from refmodel.numerics import LLAMACPP, NUMPY

MODELS = Path(__file__).parent.parent / "golden" / "models"
ARCHITECTURES = ("llama", "mistral3", "qwen2", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "gemma3", "austen")
TYPES = ("", "-Q8_0", "-Q4_K_M")
TOKENS = 12
# (evidence, NMSE of the noise that is added to logits)
SEEN = [("full", 0.0), ("hidden", 0.0), ("last", 1e-6), ("last", 1e-3), ("logits", 1e-3), ("top", 0.0), ("greedy", 0.0)]
# Faults of small_faults.py that the library has by another name, or that are rounding
KNOWN = (
    "rope pairs",
    "value heads grouped",
    "z by sigmoid",
    "gate before",
    "dt bias",
    "taps of the convolution",
    "state not carried",
)
KNOWN += (
    "rounded to",
    "window one",
    "GELU by erf",
    "shared expert without",
    "router's shares",
    "gate of attention by",
    "rope base",
    "rope of all",
    "heads tiled",
    "head normed after",
    "position of a call",
    "eps ten times",
    "gate and up",
    "feed-forward part without",
    "two experts",
    "a hole in the cache",
)


@dataclass(frozen=True)
class Case:
    """One case; `fault` names those that are put in, joined by +."""

    number: int
    what: str
    model: str
    fault: str
    evidence: str
    noise: float

    @property
    def key(self) -> tuple[int, str]:
        return self.number, self.what


def cases(what: str, count: int, seed: int) -> Iterator[Case]:
    """The cases of a kind, in turn over evidence."""
    kinds = {"pairs": [("last", 1e-6), ("last", 1e-3)], "unknown": [("full", 0.0), ("hidden", 0.0), ("logits", 0.0)]}
    for number in range(count):
        r = random.Random(f"{seed} {what} {number}")
        evidence, noise = kinds.get(what, SEEN)[number % len(kinds.get(what, SEEN))]
        arch = "austen" if evidence == "greedy" else r.choice(ARCHITECTURES)
        kind = r.choice(TYPES)
        name = f"{arch}{'-BF16' if arch == 'austen' and not kind else kind}"
        yield Case(number, what, name, chosen(what, name, r), evidence, noise)


def chosen(what: str, name: str, r: random.Random) -> str:
    """The names of the faults of a case: of those that make a difference to the model."""
    model = refmodel.load(MODELS / f"{name}.gguf")
    if what == "healthy":
        return ""
    if what == "unknown":
        own = [fault for fault in UNKNOWN if not fault.startswith(KNOWN) and not any(word in fault for word in KNOWN)]
        return r.choice([fault for fault in own if UNKNOWN[fault](Sick(model, NUMPY)) is not None])
    fitting = [fault.name for fault in FAULTS.values() if not fault.placebo and fault.on(Engine(model, NUMPY)) is not None]
    return "+".join(sorted(r.sample(fitting, 2 if what == "pairs" else 1)))


def engine_of(case: Case, model: Any) -> Engine | None:
    """The engine of a case: NumPy's float32 for floats, llama.cpp's arithmetic for packed weights."""
    healthy = Engine(model, LLAMACPP if case.model.endswith(("Q8_0", "Q4_K_M")) and case.number % 2 else NUMPY)
    if case.what == "unknown":
        sick = UNKNOWN[case.fault](Sick(model, healthy.numerics))
        return sick and replace(healthy, model=sick.model, numerics=sick.numerics)
    return with_all([FAULTS[name] for name in case.fault.split("+") if name], healthy)


def run(case: Case) -> dict[str, Any]:
    """Diagnose one case."""
    r = np.random.default_rng([case.number, len(case.what)])
    model = refmodel.load(MODELS / f"{case.model}.gguf")
    engine = engine_of(case, model)
    assert engine is not None, case
    healthy = Engine(model, engine_of(replace(case, fault="", what="healthy"), model).numerics)
    calls = [r.integers(0, model.n_vocab, TOKENS).tolist()]
    start = time.time()
    try:
        other = dumped(model, written(engine, calls, case.evidence, case.noise, r), calls)
    except DumpError as error:  # of another number of tokens than was asked for, which is what is wrong
        return vars(case) | {"changed": 1.0, "seconds": 0.0} | {**NOTHING, "right": True, "arithmetic": str(error)}
    found = diagnose(model, other, FAULTS.values(), lambda name: None, calls)
    fewer = [with_all(some, healthy) or healthy for some in without_one(case)]
    shows = min(changed(other, dumped(model, written(one, calls, case.evidence, 0.0, r), calls)) for one in fewer)
    return vars(case) | {"changed": shows, "seconds": round(time.time() - start, 2)} | outcome(case, found)


NOTHING = {"verdict": "refused", "named": [], "class": 0, "tap": None, "relation": None}


def without_one(case: Case) -> list[list[Fault]]:
    """The faults of a case but one, in each way; no fault for one of another kind."""
    names = [name for name in case.fault.split("+") if name in FAULTS]
    return [[FAULTS[name] for name in names if name != left] for left in names] or [[]]


def changed(other: Any, plain: Any) -> float:
    """The largest NMSE between what was written and the same with a fault less."""
    return max((rounded(plain.taps[tap], other.taps[tap]) for tap in other.taps if tap in plain.taps), default=0.0)


def outcome(case: Case, found: Diagnosis) -> dict[str, Any]:
    """What was found, as plain data."""
    sets = [found.answers[0].faults, *found.answers[0].same_as] if found.answers else []
    named = ["+".join(sorted(fault.name for fault in faults)) for faults in sets]
    ids = ["+".join(sorted(fault.id for fault in faults)) for faults in sets]
    true = "+".join(sorted(FAULTS[name].id for name in case.fault.split("+") if name in FAULTS))
    where = found.located
    return {
        "verdict": found.verdict,
        "named": named[:4],
        "right": case.fault in named or (bool(true) and true in ids),
        "class": len(sets),
        "tap": where.tap if where else None,
        "relation": str(where.relation) if where and where.relation else None,
        "arithmetic": found.arithmetic,
    }


def good(line: Mapping[str, Any]) -> bool:
    """Whether a line is as it should be."""
    if line["what"] == "healthy":
        return line["verdict"] == "healthy"
    if line["what"] == "unknown":
        return line["verdict"] == "unknown"
    return bool(line["right"])


def summary(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the shares by kind, evidence and noise, and every case that is not as it should be."""
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["what"], line["evidence"], line["noise"]].append(line)
    for (what, evidence, noise), of in sorted(groups.items()):
        least = max(10 * noise, 1e-9) if what != "healthy" else -1.0
        shown = [line for line in of if line["changed"] > least]
        fine = sum(map(good, shown))
        related = sum(line["relation"] is not None for line in shown)
        seconds = sorted(line["seconds"] for line in of)[len(of) // 2]
        print(
            f"{what:8} {evidence:7} noise {noise:.0e}: {fine} of {len(shown)} ({len(of) - len(shown)} change nothing); "
            f"classes of {np.mean([line['class'] for line in shown] or [0]):.2f}; related {related}; median {seconds} s"
        )
    for line in lines:
        if not good(line) and (line["changed"] > max(10 * line["noise"], 1e-9) or line["what"] == "healthy"):
            keys = ("what", "number", "model", "fault", "evidence", "noise", "changed", "verdict", "named", "arithmetic")
            print("NOT " + " ".join(str(line[key]) for key in keys))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--what", choices=["singles", "pairs", "healthy", "unknown"], default="singles")
    parser.add_argument("--evidence", choices=list(EVIDENCE), help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    use(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(line["number"], line["what"]) for line in lines}
    with given.out.open("a") as out:
        for case in cases(given.what, given.count, given.seed):
            if case.key not in done and given.evidence in (None, case.evidence):
                lines.append(run(case))
                print(json.dumps(lines[-1]), file=out, flush=True)
    summary(lines)
    sys.exit(not all(map(good, lines)))


if __name__ == "__main__":
    main()
