"""How often is a fault named? Faults are put into engines, and `diagnose` sees only what they wrote. Run by hand:

    python tests/many_diagnoses.py OUT.jsonl --count 500 [--what singles|pairs|healthy|unknown] [--seed 0]

A case is a model (random ones of every architecture in three types, and a trained one), an engine that shares no arithmetic with
what diagnoses it, a fault, or two, or none, or one that the library does not have, what the engine wrote of its run (everything,
hidden states, logits of all tokens or the last, log-probabilities of the likeliest, greedy tokens), and noise. A fault that changes
nothing there beyond rounding is counted apart: of one that the library does not have, what is below the rounding of 8-bit
activations. OUT has one line a case; a run with the same OUT goes on where it ended.
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
from refmodel.compare.allowances import OF_CLASSES
from refmodel.compare.rounding_classes import eight_bits
from refmodel.dumps.dump import Numbers
from refmodel.errors import DumpError
from refmodel.faults.diagnosis.diagnosis import Diagnosis, diagnose
from refmodel.faults.fault import Engine, Fault, with_all
from refmodel.faults.library import FAULTS
from refmodel.machine.threads import use
from refmodel.numerics import LLAMACPP, NUMPY, ORACLE

MODELS = Path(__file__).parent.parent / "golden" / "models"
ARCHITECTURES = ("llama", "mistral3", "qwen2", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "gemma3", "austen")
TYPES = ("", "-Q8_0", "-Q4_K_M")
TOKENS = 12
LEAST_TOKENS = 3  # of the greedy ones that a fault changes
# (evidence, NMSE of the noise that is added to logits)
SEEN = [("full", 0.0), ("hidden", 0.0), ("last", 1e-6), ("last", 1e-3), ("logits", 1e-3), ("top", 0.0), ("greedy", 0.0)]
# Faults of small_faults.py that the library has by another name, if not for all of a model's tensors; "" for what is rounding
KNOWN: Mapping[str, str] = {
    "rope pairs of the other kind": "rope-pairing",
    "rope of all dimensions": "rope-all-dims",
    "rope factors not read": "rope-factors-ignored",
    "one rope base for all blocks": "rope-base-of-sliding",
    "position off by one": "position-off-by-one",
    "position of a call, not of the text": "position-of-call",
    "head normed after it is rotated": "rope-before-norm",
    "eps ten times": "eps-ten-times",
    "norm weights rounded to bfloat": "",
    "one mean for all heads": "norm-of-all-heads",
    "heads tiled, not grouped": "gqa-tiled",
    "window one longer": "window-off-by-one",
    "a hole in the cache at decode": "cache-hole",
    "cache not rounded to half": "",
    "cache rounded to bfloat": "cache-bfloat",
    "gate of attention by SiLU": "gate-silu",
    "taps of the convolution one late": "conv-off-by-one",
    "convolution's state not carried": "conv-not-carried",
    "state not carried": "state-not-carried",
    "beta without its sigmoid": "beta-without-sigmoid",
    "dt bias dropped": "dt-bias-missing",
    "value heads grouped, not tiled": "delta-heads-grouped",
    "gate before the norm": "gate-before-norm",
    "z by sigmoid, not SiLU": "z-sigmoid",
    "GELU by erf, not tanh": "ffn-gelu-by-erf",
    "SiLU for GELU": "ffn-silu",
    "SiLU by sigmoid(1.702 x)": "ffn-gelu-quick",
    "feed-forward part without its gate": "ffn-gate-missing",
    "gate and up exchanged": "ffn-gate-and-up-exchanged",
    "router's shares not normed": "shares-not-normed",
    "shared expert without its gate": "shared-expert-ungated",
    "two experts exchanged": "experts-exchanged",
    "router's scores rounded to bfloat": "",
    "residual sum rounded to bfloat": "",
    "residual sum rounded to half": "",
}
# What is true of each of the other ones at the first operation that it makes wrong: the kinds of relation that say it
RELATIONS: Mapping[str, Sequence[str]] = {
    **{name: ["rotation"] for name in UNKNOWN if name.startswith(("rope ", "one rope factor"))},
    **{name: ["token factor", "factor of heads", "factor"] for name in ("eps doubled", "no eps", "eps of a unit norm of the mean")},
    "a norm without its + 1": ["channel factor"],
    "two heads exchanged": ["permutation of heads"],
    "last query head reads another head": ["part"],
    "oldest token not seen": ["part"],
    "scale 1 % up": ["factor"],
    "a bias dropped": ["channel offset", "skipped"],
    "decay 1 % off": ["factor"],
    "embedding's scale in bfloat": ["factor"],
    "two rows of the head exchanged": ["permutation", "part"],
    "one row with a wrong scale": ["channel factor", "part"],
    "two rows of values exchanged": ["permutation", "part"],
}


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
        return r.choice([fault for fault in UNKNOWN if fault not in KNOWN and UNKNOWN[fault](Sick(model, NUMPY)) is not None])
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
    wrote = written(engine, calls, case.evidence, case.noise, r)
    try:
        other = dumped(model, wrote, calls)
    except DumpError as error:  # of another number of tokens than was asked for, which is what is wrong
        return vars(case) | {"changed": 1.0, "seconds": 0.0} | {**NOTHING, "right": True, "arithmetic": str(error)}
    found = diagnose(model, other, FAULTS.values(), lambda name: None, calls)
    fewer = [with_all(some, healthy) or healthy for some in without_one(case)]
    shows = min(changed(case, model, wrote, written(one, calls, case.evidence, 0.0, r), calls) for one in fewer)
    coarse = replace(healthy, numerics=replace(healthy.numerics, linear=EIGHT.linear, experts=EIGHT.experts))
    under = case.evidence != "full" and case.what == "unknown" and below(other, case, healthy, coarse, calls)
    taken = {"changed": shows, "under": under, "seconds": round(time.time() - start, 2)}
    return vars(case) | taken | outcome(case, found)


EIGHT = eight_bits(ORACLE, whole_rows=True)  # the coarsest class of rounding


def below(other: Any, case: Case, healthy: Engine, coarse: Engine, calls: Any) -> bool:
    """Whether what a fault changes is less, at every tap that was written, than diff allows a program with 8-bit activations."""
    plain, rough = (dumped(e.model, written(e, calls, case.evidence, 0.0, None), calls) for e in (healthy, coarse))
    of = lambda side, tap: rounded(plain.taps[tap], side.taps[tap])
    return all(of(other, tap) <= OF_CLASSES * of(rough, tap) for tap in other.taps if tap in plain.taps and tap in rough.taps)


NOTHING = {"under": False, "verdict": "refused", "named": [], "class": 0, "tap": None, "relation": None, "related": False}


def without_one(case: Case) -> list[list[Fault]]:
    """The faults of a case but one, in each way; no fault for one of another kind."""
    names = [name for name in case.fault.split("+") if name in FAULTS]
    return [[FAULTS[name] for name in names if name != left] for left in names] or [[]]


def changed(case: Case, model: Any, other: Mapping[str, Numbers], plain: Mapping[str, Numbers], calls: Any) -> float:
    """The largest NMSE between what was written and the same with a fault less; of tokens, how many differ, if three or more do."""
    if case.evidence == "greedy":
        count = int(np.sum(other["greedy"].read() != plain["greedy"].read()))
        return float(count) if count >= LEAST_TOKENS else 0.0
    a, b = (dumped(model, x, calls).taps for x in (plain, other))
    return max((rounded(a[tap], b[tap]) for tap in b if tap in a), default=0.0)


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
        "related": bool(where and where.relation and where.relation.kind in RELATIONS.get(case.fault, ())),
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
        shown = [line for line in of if line["changed"] > least and not line["under"]]
        fine = sum(map(good, shown))
        related = sum(line["related"] for line in shown)
        seconds = sorted(line["seconds"] for line in of)[len(of) // 2]
        print(
            f"{what:8} {evidence:7} noise {noise:.0e}: {fine} of {len(shown)} ({len(of) - len(shown)} change nothing); "
            f"classes of {np.mean([line['class'] for line in shown] or [0]):.2f}; related {related}; median {seconds} s"
        )
    for line in lines:
        if not good(line) and not line["under"] and (line["changed"] > max(10 * line["noise"], 1e-9) or line["what"] == "healthy"):
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
