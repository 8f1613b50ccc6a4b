"""A sweep in numbers: every window scored by its loss on a text, against a file for each window and llama.cpp's own perplexity.

    python -m benchmarks.sweeping MODEL TEXT --perplexity LLAMA-PERPLEXITY [--tokens 512] [--share 0.1]

Ours is `refmodel sweep MODEL --all --full` from start to verdict. The other side writes the file of a window (`refmodel surgery`)
and runs llama-perplexity on as many tokens of it. It does so for a random share of the windows, and its time is multiplied. The
sides take turns: the sweep is halted while the other side works. TEXT has at least twice as many tokens, which llama-perplexity
asks for.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import refmodel
from refmodel.machine.threads import used

REFMODEL = [sys.executable, "-m", "refmodel"]


def run(words: list[str]) -> float:
    """Seconds of a program that must succeed."""
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


class Halted:
    """A program that works in turns with others: `seconds` of its own so far."""

    def __init__(self, words: list[str]) -> None:
        self.child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.seconds, self.since = 0.0, time.perf_counter()

    def work(self, seconds: float | None) -> bool:
        """Let it work so long, or to its end; halt it. Returns whether it has ended."""
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGSTOP)
        self.seconds += time.perf_counter() - self.since
        return self.child.returncode is not None

    def go_on(self) -> None:
        """Let it work again."""
        self.since = time.perf_counter()
        os.killpg(self.child.pid, signal.SIGCONT)


def of_file(given: argparse.Namespace, route: str, folder: Path) -> dict[str, float]:
    """Seconds to write the file of a route, and of llama-perplexity on it."""
    copy = folder / "copy.gguf"
    copy.unlink(missing_ok=True)
    written = run([*REFMODEL, "surgery", given.model, "--route", route, "-o", str(copy)])
    asked = ["-m", str(copy), "-f", given.text, "-c", str(given.tokens), "--chunks", "1", "-t", str(used())]
    return {"written": written, "perplexity": run([given.perplexity, *asked])}


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both sides, and theirs over ours."""
    model = refmodel.load(given.model)
    routes = [f"blocks:{i},{j}" for i, j in combinations(range(model.n_layer + 1), 2)]
    tried = np.random.default_rng(given.seed).permutation(routes)[: max(1, round(given.share * len(routes)))].tolist()
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        probe, ledger = f"nll:{given.text}", str(Path(folder) / "sweep.db")
        words = ["sweep", given.model, "--all", "--full", "--probe", probe, "--tokens", str(given.tokens), "-o", ledger]
        ours = Halted([*REFMODEL, *words])
        while not ours.work(given.turn):
            if len(found) < len(tried):
                found.append(of_file(given, tried[len(found)], Path(folder)))
            ours.go_on()
        found += [of_file(given, route, Path(folder)) for route in tried[len(found) :]]
    if ours.child.returncode:
        raise SystemExit(f"the sweep ended with status {ours.child.returncode}")
    each = sum(sum(one.values()) for one in found) / len(found)
    return {
        "windows": len(routes),
        "tried": len(tried),
        "median seconds of a window": {name: round(median(one[name] for one in found), 2) for name in found[0]},
        "seconds": [round(ours.seconds, 1), round(each * len(routes), 1)],
        "theirs / ours": round(each * len(routes) / ours.seconds, 2),
        "theirs / ours without writing": round(
            sum(one["perplexity"] for one in found) / len(found) * len(routes) / ours.seconds, 2
        ),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--perplexity", required=True, metavar="PROGRAM")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--share", type=float, default=0.1, help="of the windows, written and run by the other side")
    parser.add_argument("--turn", type=float, default=8, help="seconds that the sweep works at a time")
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(measured(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
