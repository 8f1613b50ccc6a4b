"""Batches in numbers: 32 sequences that decode against a prefill of 32 tokens, and shared work against route by route.

    python -m benchmarks.batches decode MODEL [--rounds 7] [--llama-python PYTHON] [--clock processor]
    python -m benchmarks.batches tree   MODEL [--tokens 64] [--some 24]

All sides take turns in one run; what is printed are medians. A visit is one token in one block. PYTHON has llama-cpp-python.
`--clock processor` counts processor time: with one thread (NUMBA_NUM_THREADS=1) others may use the machine meanwhile.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from itertools import combinations, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import refmodel
from refmodel.machine.threads import used
from refmodel.model.batch import Batch
from refmodel.model.tree import executions, read_routes

SEQUENCES, PROMPT = 32, 16
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def seconds(do: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes, by a clock."""
    start = clock()
    do()
    return clock() - start


def windows(n: int) -> list[str]:
    """The routes of a full sweep: the model's own, and each window run twice."""
    return ["blocks:0,0", *(f"blocks:{i},{j}" for i, j in combinations(range(n + 1), 2))]


def decoding(model: refmodel.Model, routes: list[str]) -> tuple[Batch, list[int]]:
    """A batch of sequences under these routes that have read their prompts."""
    batch = model.batch("fast")
    handles = [batch.add(route) for route in routes]
    batch.hidden({handle: [(10 + i) % model.n_vocab for i in range(PROMPT)] for handle in handles}, "last")
    return batch, handles


class Step:
    """A turn of one side: `run` does it, and `visits` are its tokens times blocks."""

    def __init__(self, batch: Batch, handles: list[int], fresh: bool) -> None:
        self.batch, self.handles, self.fresh = batch, handles, fresh
        self.visits = 0

    def run(self) -> None:
        """One token of each sequence, or a prefill of as many tokens in a fresh one; with the logits of all."""
        before = self.batch.work.visits
        if self.fresh:
            handle = self.batch.add()
            self.batch.forward({handle: list(range(SEQUENCES))})
            self.batch.drop(handle)
        else:
            self.batch.forward({handle: [n] for n, handle in enumerate(self.handles)})
        self.visits = self.batch.work.visits - before


def decode(given: argparse.Namespace) -> dict[str, Any]:
    """(token, block) visits a second of each side, and the ratios of each round."""
    model = refmodel.load(given.model)
    several = windows(model.n_layer)[1:]
    chosen = [several[i] for i in np.random.default_rng(0).choice(len(several), SEQUENCES, replace=len(several) < SEQUENCES)]
    sides = {
        "prefill": Step(model.batch("fast"), [], fresh=True),
        "one route": Step(*decoding(model, [windows(model.n_layer)[0]] * SEQUENCES), fresh=False),
        "32 routes": Step(*decoding(model, chosen), fresh=False),
    }
    child = None
    if given.llama_python:
        words = [
            given.llama_python,
            Path(__file__).parent / "llama_parallel_child.py",
            given.model,
            SEQUENCES,
            PROMPT,
            used(),
            given.clock,
        ]
        child = subprocess.Popen(
            [*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    speeds = dict[str, list[float]]()
    for number in range(given.rounds + 1):
        for name, side in sides.items():
            took = seconds(side.run, CLOCKS[given.clock])
            if number:  # the first round warms up
                speeds.setdefault(name, []).append(side.visits / took)
        if child and child.stdin and child.stdout:
            time.sleep(0.05)
            child.stdin.write("step\n")
            child.stdin.flush()
            took = json.loads(child.stdout.readline())["seconds"]
            if number:
                speeds.setdefault("llama.cpp", []).append(SEQUENCES * model.n_layer / took)
    if child:
        child.kill()
        child.wait()
    ratios = {
        f"{name} / prefill": [a / b for a, b in zip(speeds[name], speeds["prefill"], strict=True)] for name in list(sides)[1:]
    }
    if "llama.cpp" in speeds:
        for name in list(sides)[1:]:
            ratios[f"{name} / llama.cpp"] = [a / b for a, b in zip(speeds[name], speeds["llama.cpp"], strict=True)]
    return {name: round(median(values), 3) for name, values in (speeds | ratios).items()} | {"rounds": given.rounds}


def tree(given: argparse.Namespace) -> dict[str, Any]:
    """A full sweep, shared; and of every `some`-th route its own run in between, with the same bits. Both sides' time for all."""
    model = refmodel.load(given.model)
    routes, prompt = windows(model.n_layer), [(7 * i + 3) % model.n_vocab for i in range(given.tokens)]
    shared, alone = model.batch("fast"), model.batch("fast")
    alone.hidden({alone.add(): prompt})  # kernels
    readings, together, apart, tried, differing = read_routes(shared, [prompt], routes), 0.0, 0.0, 0, 0
    before = alone.work.executions
    while True:
        start = time.perf_counter()
        some = list(islice(readings, given.some))
        together += time.perf_counter() - start
        if not some:
            break
        reading = some[0]
        handle = alone.add(reading.route)
        start = time.perf_counter()
        found = alone.hidden({handle: prompt})[handle]
        apart += time.perf_counter() - start
        alone.drop(handle)
        tried += 1
        differing += int((found.view(np.uint32) != reading.hidden[0].view(np.uint32)).sum())
    of_tree, of_all = executions([model.route(route) for route in routes])
    whole = apart * of_all / (alone.work.executions - before)
    assert shared.work.executions == of_tree
    return {
        "routes": len(routes),
        "executions": [of_tree, of_all, round(of_tree / of_all, 4)],
        "seconds": [round(together, 1), round(whole, 1), round(together / whole, 3)],
        "tried alone": tried,
        "differing numbers": differing,
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["decode", "tree"])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--some", type=int, default=24, help="one of so many routes is run by itself too")
    parser.add_argument("--llama-python", metavar="PYTHON")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    print(json.dumps({"decode": decode, "tree": tree}[given.what](given), indent=1))


if __name__ == "__main__":
    main()
