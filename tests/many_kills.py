"""Kills a sweep at random moments, again and again, until it is done; its ledger must be that of an undisturbed one.

    python tests/many_kills.py --count 100

In half of the sweeps two processes work on one ledger, and either may be killed. It prints how many kills there were, and how many
of them came while something was being computed. Not collected by pytest: it takes minutes.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import english  # noqa: E402
import tiny  # noqa: E402

from refmodel.cli import app  # noqa: E402
from refmodel.sweep.ledger import opened  # noqa: E402

CONTEXT = multiprocessing.get_context("fork")  # the parent computes nothing, so that its children may


def run(words: list[str]) -> None:
    """A sweep in this process, whose output nobody reads."""
    sys.stdout = sys.stderr = open(os.devnull, "w")
    app(words, standalone_mode=False)


def content(path: Path) -> dict:
    """What a ledger says, apart from times and processes."""
    with opened(path) as ledger:
        names = {row["id"]: row["route"] for row in ledger.routes()}
        rows = ledger.answers()
        found = {(names[row["route"]], row["probe"], row["first"]): (row["n"], tuple(row["scores"])) for row in rows}
    assert len(found) == len(rows), "a job was written twice"
    return found


def intact(path: Path) -> bool:
    """Whether SQLite finds nothing wrong."""
    base = sqlite3.connect(path)
    try:
        return base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        base.close()


def disturbed(words: list[str], path: Path, r: random.Random, seconds: float, several: bool) -> tuple[int, int]:
    """Run a sweep to its end with kills in between. Returns how many kills there were, and how many found it at work."""
    kills = amid = 0
    for _ in range(200):
        children = [CONTEXT.Process(target=run, args=(words,)) for _ in range(1 + several)]
        for child in children:
            child.start()
        time.sleep(r.uniform(0, seconds))
        alive = [child for child in children if child.is_alive()]
        if not alive:
            break
        for child in r.sample(alive, r.randint(1, len(alive))):
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        amid += path.exists() and path.stat().st_size > 0
        for child in children:
            child.join()
        assert not path.exists() or not path.stat().st_size or intact(path), "the ledger is corrupt"
    for child in children:
        child.join()
    return kills, amid


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="kills at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    r, kills, amid, sweeps = random.Random(arguments.seed), 0, 0, 0
    with TemporaryDirectory(prefix="refmodel-") as folder:
        here = Path(folder)
        model, text = tiny.build(here / "m.gguf", "llama", n_layer=7), here / "t.txt"
        text.write_text(english.TEXT[:400])
        words = [
            "sweep",
            str(model),
            "--all",
            "--full",
            "--probe",
            f"nll:{text}",
            "--probe",
            f"kl:{text}",
            "--numerics",
            "numpy",
            "-o",
        ]
        start, whole = time.perf_counter(), here / "whole.db"
        child = CONTEXT.Process(target=run, args=([*words, str(whole)],))
        child.start()
        child.join()
        seconds, wanted = time.perf_counter() - start, content(whole)
        while kills < arguments.count:
            sweeps += 1
            path = here / f"{sweeps}.db"
            more, found_at_work = disturbed([*words, str(path)], path, r, seconds, several=bool(sweeps % 2))
            kills, amid = kills + more, amid + found_at_work
            run_again = CONTEXT.Process(target=run, args=([*words, str(path)],))
            run_again.start()
            run_again.join()
            if content(path) != wanted or not intact(path):
                print(f"sweep {sweeps}: the ledger differs from the undisturbed one")
                return 1
            print(f"{sweeps} sweeps, {kills} kills, {amid} of them in {len(wanted)} jobs of a sweep: equal", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
