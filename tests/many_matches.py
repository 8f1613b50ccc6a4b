"""Matching by value: dumps whose names say nothing, whose axes and heads are in other orders, of runs with up to two faults.

    python tests/many_matches.py OUT.jsonl [--count N] [--first SEED]

A line of OUT for each dump; those that are there already are not made again. At the end the totals: arrays before the first fault
that were matched right, those after it, and maps that were called sure and have a wrong entry. An array is matched right if our tap
has the numbers of the tap that it was written from, and its axes, heads and tokens give them back.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny

import refmodel
from refmodel.compare.matching import SURE, TWICE, Match, matched, sure
from refmodel.compare.verdict import stem
from refmodel.dumps.dump import Dump, Numbers
from refmodel.dumps.layouts import AS_IS, orders

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen35", "qwen3moe", "qwen35moe", "qwen3next", "gemma3")
IDS = [5, 6, 7, 8, 9, 17, 41, 3, 88, 120, 64]
SUMS = ("ffn_moe_topk", "l_out", "ffn_inp", "attn_residual", "sa_out")  # residual sums, which no program computes by itself wrongly
KINDS: Mapping[str, Callable[[str], bool]] = {
    "full": lambda tap: True,
    "hidden states": lambda tap: tap.startswith(("l_out-", "result_output")),
    "parts": lambda tap: tap.startswith(("l_out-", "Qcur", "Kcur", "attn_norm", "ffn_", "result_", "z-", "attn_output", "beta")),
}


def changed(kind: int, x: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """A tap with a fault: reversed, shifted, of another size, a sigmoid too much, half of it missing, wrong signs."""
    if kind == 0:
        return np.ascontiguousarray(x[..., ::-1])
    if kind == 1:
        return np.roll(x, 1, axis=-1)
    if kind == 2:
        return x * 3
    if kind == 3:
        return 1 / (1 + np.exp(-x))
    y = x.copy()
    if kind == 4:
        y[..., : x.shape[-1] // 2] = 0
    else:
        y[..., r.permutation(x.shape[-1])[: x.shape[-1] // 3]] *= -1
    return y


def run_of(model: Any, faults: Mapping[str, int], r: np.random.Generator) -> dict[str, np.ndarray]:
    """All taps of a run in which some are faulty, in order."""
    taps: dict[str, np.ndarray] = {}

    def tapper(name: str, x: np.ndarray) -> np.ndarray:
        if name in faults:
            x = changed(faults[name], x, r).astype(x.dtype)
        taps[name] = np.array(x)
        return x

    model.forward(IDS, tapper=tapper)
    return taps


def written(tap: str, x: np.ndarray, model: Any, r: np.random.Generator) -> tuple[np.ndarray, str]:
    """A tap as another program may have it: some tokens, axes permuted, heads in another order; and the word of that order."""
    word = AS_IS
    by_token = x.ndim and x.shape[0] == len(IDS)
    if by_token and r.random() < 0.3:
        options = orders(stem(tap), x[0].size, model.hp)
        word = str(r.choice(list(options)))
        if (index := options[word]) is not None:
            flat = np.empty((len(IDS), x[0].size), x.dtype)
            flat[:, index] = x.reshape(len(IDS), -1)  # ours = theirs[index]
            x = flat.reshape(x.shape)
    if by_token and x.ndim == 2 and tap.startswith(("l_out", "result")) and r.random() < 0.1:
        x = x[-1:]
    if x.ndim > 1 and r.random() < 0.4:
        x = np.ascontiguousarray(x.transpose(r.permutation(x.ndim)))
    return x[None] if r.random() < 0.2 else x, word


def case(seed: int, folder: Path) -> dict[str, Any]:
    """One dump: what it was, and how it was matched."""
    r = np.random.default_rng(seed)
    arch = ARCHITECTURES[seed % len(ARCHITECTURES)]
    model = refmodel.load(tiny.build(folder / f"{seed}.gguf", arch, seed=seed))
    kind = str(r.choice(list(KINDS)))
    right = run_of(model, {}, r)
    places = [tap for tap, x in right.items() if x.ndim and x.shape[0] == len(IDS) and x.shape[-1] > 3 and not tap.startswith(SUMS)]
    faults = {str(tap): int(r.integers(6)) for tap in r.choice(places, int(r.integers(3)), replace=False)}
    theirs = run_of(model, faults, r)
    order = list(theirs)
    first = min((order.index(tap) for tap in faults), default=len(order))
    chosen = [tap for tap, x in theirs.items() if KINDS[kind](tap) and x.size and x.dtype.kind == "f"]
    arrays, names = {}, {}
    for number, tap in enumerate(r.permutation(chosen)):
        name = f"a{number:04}"
        arrays[name], _ = written(str(tap), theirs[str(tap)], model, r)
        names[name] = str(tap)
    numbers = {name: Numbers(x.shape, "F32", lambda x=x: x) for name, x in arrays.items()}
    matches, taps = matched(model, Dump(folder, "arrays", numbers, [IDS]), [IDS], model.route(), lambda name: None)
    wrong = [
        (names[m.own], m.place.tap if m.place else "", m.how)
        for m in matches
        if not fits(m, names[m.own], arrays, theirs, right, taps)
    ]
    before = {tap for tap in chosen if order.index(tap) < first}
    return {
        "seed": seed,
        "model": arch,
        "kind": kind,
        "faults": faults,
        "arrays": len(chosen),
        "before": len(before),
        "wrong_before": [w for w in wrong if w[0] in before],
        "wrong_after": [w for w in wrong if w[0] not in before],
        "sure": sure(matches),
        "wrong_sure": [w for w in wrong if w[2] in (SURE, TWICE)],
    }


def fits(
    match: Match, tap: str, arrays: Mapping[str, Any], theirs: Mapping[str, Any], right: Mapping[str, Any], taps: Mapping[str, Any]
) -> bool:
    """Whether a match says what an array is: the tap that it was written from, or one of the same numbers, arranged as that is."""
    if match.place is None:
        return False
    if match.place.tap != tap and not same(theirs, match.place.tap, tap) and not same(right, match.place.tap, tap):
        return False
    seen, x = taps[match.place.tap], theirs[match.place.tap]
    got = match.place.arranged(arrays[match.own], seen).reshape(-1)
    want = (x[None] if seen.shape[1:] == x.shape else x)[match.place.first : match.place.first + match.place.count].reshape(-1)
    return got.size == want.size and bool(np.allclose(got, want, rtol=1e-5, atol=1e-30) or same(theirs, match.place.tap, tap))


def same(run: Mapping[str, np.ndarray], a: str, b: str) -> bool:
    """Whether two taps of a run have the same numbers."""
    x, y = run[a].ravel(), run[b].ravel()
    return x.size == y.size and bool(np.allclose(x, y, rtol=1e-6, atol=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    done = {json.loads(line)["seed"] for line in asked.out.read_text().splitlines()} if asked.out.exists() else set()
    with tempfile.TemporaryDirectory() as folder, asked.out.open("a") as out:
        for seed in range(asked.first, asked.first + asked.count):
            if seed not in done:
                out.write(json.dumps(case(seed, Path(folder))) + "\n")
                out.flush()
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()]
    before, arrays = sum(row["before"] for row in rows), sum(row["arrays"] for row in rows)
    lost = sum(len(row["wrong_before"]) for row in rows), sum(len(row["wrong_after"]) for row in rows)
    print(f"{len(rows)} dumps of {len({row['model'] for row in rows})} architectures, {arrays} arrays")
    print(
        f"before the first fault: {before - lost[0]} of {before} right; after it {arrays - before - lost[1]} of {arrays - before}"
    )
    wrong = [row for row in rows if row["sure"] and row["wrong_before"] + row["wrong_after"]]
    print(f"maps called sure: {sum(row['sure'] for row in rows)}; of these wrong: {len(wrong)}")
    print(f"single arrays called sure and wrong: {sum(len(row['wrong_sure']) for row in rows)}")


if __name__ == "__main__":
    main()
