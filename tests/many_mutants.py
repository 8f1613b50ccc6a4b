"""Very many mutants of every format, in child processes with limits of memory and time. Run by hand:

    python tests/many_mutants.py run results.jsonl --count 1000000 --only gguf     # goes on where it ended
    python tests/many_mutants.py run results.jsonl --seconds 600                    # every format in turn, so long
    python tests/many_mutants.py report results.jsonl                               # figures, and each kind of fault with a seed
    python tests/many_mutants.py one gguf 1234                                      # one mutant, with its traceback

A mutant is known by its format and its seed (mutants.py). A line of the results is one batch: its format, its first seed, how many
were read and how many refused, and what else came out of which seed. A child that ends, or does not, is found by its batch.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

BATCH = 500
PATIENCE = 60  # seconds by the clock for a batch, and two for each mutant: a machine may be busy


def batch(name: str, first: int, count: int) -> dict[str, Any]:
    """Read `count` mutants in this process, which is limited."""
    import mutants

    mutants.limited()
    seen: Counter[str] = Counter()
    odd = []
    for seed in range(first, first + count):
        print(seed, file=sys.stderr, flush=True)  # the last one is the one at which a process died
        found = mutants.outcome(name, seed)
        if found in ("read", "refused"):
            seen[found] += 1
        else:
            odd.append([seed, found])
    return {"format": name, "first": first, "count": count, **seen, "odd": odd}


def in_a_child(name: str, first: int, count: int) -> dict[str, Any]:
    """The same in a child process; what ended it is an odd outcome of the mutant that it was at."""
    command = [sys.executable, __file__, "batch", name, str(first), str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE + 2 * count)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        why, said = f"the process ended with status {done.returncode}", done.stderr
    except subprocess.TimeoutExpired as error:
        why, said = "the process hung", (error.stderr or b"").decode(errors="replace")
    seeds = [int(line) for line in said.splitlines() if line.isdigit()]
    at = seeds[-1] if seeds else first
    return {
        "format": name,
        "first": first,
        "count": at - first + 1,
        "odd": [[at, f"{why}: {said.splitlines()[-1][:200] if said else ''}"]],
    }


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The batches in a file of results; a line that was cut off is none."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def run(path: Path, names: list[str], count: int, seconds: float, size: int) -> None:
    """Run batches of each format in turn, from the seed at which the file ends, until there are `count`, or the time is over."""
    done: Counter[str] = Counter()
    for one in lines(path):
        done[one["format"]] = max(done[one["format"]], one["first"] + one["count"])
    end = time.monotonic() + seconds
    while left := [name for name in names if done[name] < count]:
        for name in left:
            if time.monotonic() > end:
                return
            few = max(size // 50, 1) if name == "template" else size
            one = in_a_child(name, done[name], min(few, count - done[name]))
            done[name] += one["count"]
            with path.open("a") as file:
                file.write(json.dumps(one) + "\n")
            for seed, found in one["odd"]:
                print(f"{name} {seed}: {found}", flush=True)


def report(path: Path) -> None:
    """Print how many mutants of each format there were and what came out, then each kind of fault once."""
    totals: dict[str, Counter[str]] = {}
    kinds: dict[tuple[str, str], int] = {}
    for one in lines(path):
        seen = totals.setdefault(one["format"], Counter())
        seen.update(mutants=one["count"], read=one.get("read", 0), refused=one.get("refused", 0), odd=len(one["odd"]))
        for seed, found in one["odd"]:
            kinds.setdefault((one["format"], found[:70]), seed)
    for name, seen in sorted(totals.items()):
        print(
            f"{name:18} {seen['mutants']:>9,} mutants: {seen['read']:>8,} read, {seen['refused']:>9,} refused, {seen['odd']:,} else"
        )
    for (name, found), seed in sorted(kinds.items()):
        print(f"{name} {seed}: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "report"):
        commands.add_parser(name).add_argument("results", type=Path)
    commands.choices["run"].add_argument("--only", action="append", default=[])
    commands.choices["run"].add_argument("--count", type=int, default=1_000_000)
    commands.choices["run"].add_argument("--seconds", type=float, default=float("inf"))
    commands.choices["run"].add_argument("--batch", type=int, default=BATCH)
    for name in ("batch", "one"):
        commands.add_parser(name).add_argument("format")
        commands.choices[name].add_argument("first", type=int)
    commands.choices["batch"].add_argument("count", type=int)
    asked = parser.parse_args()
    if asked.command == "report":
        report(asked.results)
    elif asked.command == "batch":
        print(json.dumps(batch(asked.format, asked.first, asked.count)))
    elif asked.command == "one":
        import mutants

        with TemporaryDirectory() as folder:
            print(mutants.FORMATS[asked.format](random.Random(f"{asked.format} {asked.first}"), Path(folder)))
    else:
        import mutants

        run(asked.results, asked.only or list(mutants.FORMATS), asked.count, asked.seconds, asked.batch)


if __name__ == "__main__":
    main()
