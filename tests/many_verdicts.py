"""Many healthy and many sick engines: how often is the verdict right? Run by hand, with REFMODEL_LLAMA_LIB set:

    python tests/many_verdicts.py OUT.jsonl --healthy 250 --sick 75
    python tests/many_verdicts.py OUT.jsonl --llama-lib .../libggml-cpu-zen4.so --file SmolLM2.gguf --healthy 250

A case is a file (a random model of any architecture and types, or a trained one), a prompt and three decode steps, and a profile.
A healthy case is judged next to the library. A sick one has a fault of small_faults.py on our side, and is judged with what
rounding explains of the healthy model. Sick ones, and as many of the healthy ones as --unknown says, are judged twice: as what the
library is, and as one of which no bits are known, by the arithmetic of another build. A fault that changes no bit on this input is
counted apart. OUT has one line a case; a run with the same OUT goes on where it ended.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tiny
from gguf import GGML_QUANT_SIZES
from small_faults import FAULTS, Engine

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.compare.diff import diff
from refmodel.compare.other_side import ALL, Other
from refmodel.compare.rows import Row
from refmodel.compare.verdict import Verdict, measured, verdict_on
from refmodel.llamacpp.builds import AVX2, BUILDS, JUDGE, SKYLAKEX, compiled_for
from refmodel.llamacpp.library import Library, locate
from refmodel.llamacpp.profile import profile_of
from refmodel.machine.threads import use
from refmodel.model.model import Model
from refmodel.numerics import LLAMACPP, Numerics, llamacpp
from refmodel.ops.ggml_paths import PATHS
from refmodel.quants import FLOATS
from refmodel.surgery.live import live

ROOT = Path(__file__).parent.parent
KINDS = [*FLOATS, *PATHS]
PROFILES = ("default", "default", "default", "exact", "fa=off", "kv=f32", "repack=off", "tiled=off,fa=on")
TRAINED = [ROOT / "golden" / "models" / f"austen-{kind}.gguf" for kind in ("Q4_K_M", "Q8_0", "BF16")]
YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
LINEAR = {"type": "linear", "factor": 3.0}
MORE: Mapping[str, Sequence[dict[str, Any]]] = {  # what a file of an architecture may have besides
    "llama": [{"rope_freqs": True}, {"scaling": LINEAR}, {"scaling": YARN}, {"biases": tiny.QKV}, {"tied": True}],
    "qwen2": [{"scaling": YARN}, {"tied": True}],
    "qwen3": [{"tied": True}, {"scaling": LINEAR}],
    "gemma3": [{"window": 24}, {"window": 4}, {"softcap": 1.5}, {"scaling": LINEAR}],
}


@dataclass(frozen=True)
class Case:
    """What is judged.

    what     the file in words
    calls    token ids
    profile  the words of a profile of llama.cpp
    """

    model: Model
    what: str
    calls: list[list[int]]
    profile: str


def random_model(r: random.Random, folder: Path) -> tuple[Path, str]:
    """A tiny model: any architecture; one type for all matrices, a mix, or floats. Its path, and what it is."""
    arch, kind = r.choice(list(ARCHITECTURES)), r.choice([*KINDS, None])
    types = lambda name: kind or KINDS[random.Random(name).randrange(len(KINDS))]
    sizes: dict[str, Any] = {"E": 512 if arch in ("qwen2", "lfm2") else 256, "F": 512, "H": 8, "G": 2, "D": 64, "n_rot": 64}
    if arch in tiny.DELTA:
        sizes |= {"S": 64, "Hk": 2, "Hv": 4, "n_rot": 16, "interval": 2}
    if tiny.SHAPES[arch].experts:
        sizes |= {"Fx": 256}
    if tiny.SHAPES[arch].Fs:
        sizes |= {"Fs": 256}
    more = r.choice([{}, *MORE.get(arch, [])])
    fits = lambda name: types(name) if 256 % GGML_QUANT_SIZES[types(name)][0] == 0 else KINDS[0]
    sizes |= {"n_layer": 4, "types": fits, "trained": r.random() < 0.5, **more}
    what = " ".join([arch, kind.name if kind else "mixed", *more])
    return tiny.build(folder / "m.gguf", arch, seed=r.randrange(1 << 30), **sizes), what


def case(r: random.Random, folder: Path, trained: Sequence[Path]) -> Case:
    """A random case; one in four is of a trained file, and reads text."""
    if r.random() < 0.25:
        path = r.choice(trained)
        model, what = refmodel.load(path), path.stem
        page = r.choice(sorted((ROOT / "docs").glob("*.md"))).read_text()
        start = r.randrange(len(page) // 2)
        ids = model.tokenizer.encode(page[start : start + 2000], add_special=True, parse_special=False)
    else:
        path, what = random_model(r, folder)
        model = refmodel.load(path)
        ids = [r.randrange(model.n_vocab) for _ in range(200)]
    T = r.choice((1, 5, 9, 33, 66, 140))
    return Case(model, what, [ids[:T], *([token] for token in ids[T : T + 3])], r.choice(PROFILES))


def judged(c: Case, fault: str, library: Library, folder: Path, twice: bool) -> dict[str, Any] | None:
    """The line of a case; None if the fault does not fit its model. `twice` as one whose bits are not known too."""
    other = live(c.model, c.model.route(), c.calls, profile_of(c.profile), library, False, folder)
    rows = rows_of(c.model, fault, other)
    if rows is None:
        return None
    before = rows_of(c.model, "", other) if fault and other.unknown else None
    line = {"what": c.what, "profile": c.profile, "calls": [len(call) for call in c.calls], "operations": len(rows)}
    line["changed"] = sum((row.differ, row.problem) != was(before, name) for name, row in rows.items())
    line["known"] = outcome(verdict_of(c.model, other, rows, folder))
    if twice:
        stranger = replace(other, unknown=ALL, arithmetic=another(other.arithmetic))
        line["unknown"] = outcome(verdict_of(c.model, stranger, rows_of(c.model, fault, stranger) or {}, folder))
    return line


def another(num: Numerics) -> Numerics:
    """The arithmetic of a build that differs from this one in its registers and in what it fuses, and rounds activations alike."""
    assert num.emulates
    theirs = num.emulates.build
    build = BUILDS["0ad4a86"] if theirs.commit == JUDGE.commit else JUDGE
    cpu = AVX2 if theirs.instructions != AVX2 else SKYLAKEX
    return llamacpp(num.emulates.profile, compiled_for(build, replace(cpu, plainly=theirs.instructions.plainly)))


def verdict_of(model: Model, other: Other, rows: dict[str, Row], folder: Path) -> Verdict:
    """The verdict on rows that may be a sick model's; what rounding explains is the healthy one's."""
    needed = any(row.differ and not other.is_exact(name) for name, row in rows.items())
    noise = measured(model, model.route(), other, folder, lambda name: None) if needed else None
    return verdict_on(rows, other, other.arithmetic, noise)


def was(before: dict[str, Row] | None, name: str) -> tuple[int, str]:
    return (before[name].differ, before[name].problem) if before else (0, "")


def rows_of(model: Model, fault: str, other: Other) -> dict[str, Row] | None:
    """What a model, with a fault or without one, computes from the other side's numbers, by tap; None if the fault does not fit."""
    healthy = Engine(model, other.arithmetic)
    engine = FAULTS[fault](healthy) if fault else healthy
    if engine is None:
        return None
    run = diff(engine.model, other.calls, other.taps, engine.model.route(), engine.numerics, "node", lambda name: None)
    return other.judged(run.rows)


def outcome(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data; `used` is the largest share of what rounding explains."""
    shares = {
        row.name: row.nmse / row.allowed for row in verdict.rows.values() if row.differ and row.allowed > 0 and not row.problem
    }
    at = max(shares, key=lambda name: shares[name], default="")
    first = verdict.first and {"tap": verdict.first.name, "nmse": verdict.first.nmse, "allowed": verdict.first.allowed}
    return {"word": verdict.word, "first": first, "used": shares.get(at, 0.0), "at": at}


def cases(given: argparse.Namespace, label: str, done: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The faults ("" for none) and numbers of what is left to do, healthy and sick ones in turn; each library begins elsewhere."""
    kinds = random.Random(label).sample(list(FAULTS), len(FAULTS))
    wanted = [("", n) for n in range(given.healthy)] + [(kinds[n % len(FAULTS)], n) for n in range(given.sick)]
    wanted.sort(key=lambda fault_and_n: fault_and_n[1] / (given.sick if fault_and_n[0] else given.healthy))
    yield from (one for one in wanted if one not in done)


def run(given: argparse.Namespace, library: Library, label: str, fault: str, number: int) -> dict[str, Any]:
    """Judge one case: the first random one that the fault fits."""
    start, trained = time.time(), [*TRAINED, *given.file]
    for attempt in range(200):
        r = random.Random(f"{given.seed} {label} {fault} {number} {attempt}")
        with TemporaryDirectory(prefix="refmodel-") as folder:
            c = case(r, Path(folder), trained)
            if fault and FAULTS[fault](Engine(c.model, LLAMACPP)) is None:
                continue
            line = judged(c, fault, library, Path(folder), bool(fault) or number % 100 < given.unknown)
        if line is not None:
            return {"library": label, "fault": fault, "number": number, "seconds": round(time.time() - start, 1)} | line
    raise AssertionError(f"no model has what {fault!r} needs")


def wrong(line: Mapping[str, Any], how: str) -> bool:
    """Whether a verdict of a line, known or unknown, is there and wrong."""
    return how in line and (line[how]["word"] == "wrong") != bool(line["fault"] and line["changed"])


def summary(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the counts by library, every wrong verdict, and the largest share of what rounding explains that was used."""
    for label in sorted({line["library"] for line in lines}):
        of = [line for line in lines if line["library"] == label]
        healthy, sick = [line for line in of if not line["fault"]], [line for line in of if line["fault"]]
        for name, some in (("healthy", healthy), ("sick", [line for line in sick if line["changed"]])):
            as_judged = {how: [wrong(line, how) for line in some if how in line] for how in ("known", "unknown")}
            counts = " and ".join(f"{sum(bad)} of {len(bad)} wrongly as {how}" for how, bad in as_judged.items())
            print(f"{label}: {len(some)} {name}, {sum(line['operations'] for line in some)} operations: {counts}")
        print(f"{label}: {sum(not line['changed'] for line in sick)} faults changed nothing")
    twice = [line for line in lines if not line["fault"] and "unknown" in line]
    most = max(twice, key=lambda line: line["unknown"]["used"], default=None)
    if most:
        print(
            f"at most {most['unknown']['used']:.3f} of what rounding explains was used: {most['unknown']['at']} of {most['what']}"
        )
    for line in lines:
        for how in ("known", "unknown"):
            if wrong(line, how):
                first = line[how]["first"] or {"tap": line[how]["at"], "nmse": line[how]["used"], "allowed": 1}
                where = f"{first['tap']} {first['nmse']:.1e}, allowed {first['allowed']:.1e}"
                print(
                    f"WRONGLY {line[how]['word']} as {how}: {line['fault'] or 'healthy'} {line['number']}: {line['what']} {where}"
                )
    missed = Counter(line["fault"] for line in lines if line["fault"] and not line["changed"])
    print("changed nothing: " + ", ".join(f"{name} ({n})" for name, n in missed.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--healthy", type=int, default=0)
    parser.add_argument("--sick", type=int, default=0)
    parser.add_argument("--unknown", type=int, default=30, help="of 100 healthy cases so many are judged as unknown too")
    parser.add_argument("--llama-lib", type=Path)
    parser.add_argument("--label", default="", help="the library's name in OUT; by default its file's")
    parser.add_argument("--file", type=Path, action="append", default=[], help="another trained model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    use(None)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if given.healthy or given.sick:
        library = locate(given.llama_lib)
        label = given.label or (library.variant or library.path).stem
        done = {(line["fault"], line["number"]) for line in lines if line["library"] == label}
        with given.out.open("a") as out:
            for fault, number in cases(given, label, done):
                lines.append(run(given, library, label, fault, number))
                print(json.dumps(lines[-1]), file=out, flush=True)
    summary(lines)
    sys.exit(any(wrong(line, how) for line in lines for how in ("known", "unknown")))


if __name__ == "__main__":
    main()
