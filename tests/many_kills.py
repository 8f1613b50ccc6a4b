"""Kills commands that write at random moments, again and again; what they leave must be nothing, or whole.

    python tests/many_kills.py all kills.jsonl --count 100
    python tests/many_kills.py surgery trace kills.jsonl

Every other kill waits until the first of what a command writes is there: most of a command's time passes before that.
After each kill nothing stands under a final name but what an undisturbed run writes, and the files that are read are as
they were. After every few kills the command runs to its end: then nothing else is left in its folder. Of a sweep the
ledger is compared, and in half of the sweeps two processes work on it, of which either may be killed. Of a warm-up the
cache of kernels has no file that is half-written.

Each line of the last file is one kill; kills that are there count, so that an ended campaign goes on. Not collected by
pytest: it takes minutes, and `warmup` compiles kernels in each run.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import english  # noqa: E402
import tiny  # noqa: E402

from refmodel.cli import app  # noqa: E402
from refmodel.machine import partial  # noqa: E402
from refmodel.sweep.ledger import opened  # noqa: E402

CONTEXT = multiprocessing.get_context("fork")  # the parent computes nothing, so that its children may
EACH = 5  # kills between runs to the end
WRITING = 0.05  # of the time of a run, in which what a command writes is written
TOKENS = "5,9,200,31,7"


@dataclass(frozen=True)
class Writer:
    """A command whose processes are killed.

    words    its arguments, {here} for its folder
    content  its folder -> what it wrote; None before the first of it is there, and for what may be there in part
    loose    what an unfinished run may leave beside temporary files
    several  two processes in every other round
    """

    words: str
    content: Callable[[Path], object]
    loose: tuple[str, ...] = ()
    several: bool = False


def written(name: str) -> Callable[[Path], object]:
    """The bytes of a file that is there whole or not at all."""
    return lambda here: (here / name).read_bytes() if (here / name).exists() else None


def ledger(here: Path) -> object:
    """What a ledger says, apart from times and processes; SQLite finds nothing wrong with it."""
    path = here / "out.db"
    base = sqlite3.connect(path)
    try:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the ledger is corrupt"
    finally:
        base.close()
    with opened(path) as found:
        names = {row["id"]: row["route"] for row in found.routes()}
        rows = found.answers()
    said = {(names[row["route"]], row["probe"], row["first"]): (row["n"], tuple(row["scores"])) for row in rows}
    assert len(said) == len(rows), "a job was written twice"
    return said


def kernels(here: Path) -> object:
    """The kinds of files that a cache has: how many kernels it holds depends on which of several processes is first."""
    return {path.suffix or path.parent.name for path in (here / "cache").rglob("*") if path.is_file() and path.name != "lock"}


PROBES = "--probe nll:{here}/t.txt --probe kl:{here}/t.txt"
WRITERS = {
    "surgery": Writer("surgery {here}/m.gguf --route blocks:1,3 -o {here}/out.gguf", written("out.gguf")),
    "trace": Writer(
        f"trace {{here}}/m.gguf --tokens {TOKENS} --decode 2 --numerics numpy -o {{here}}/out.safetensors",
        written("out.safetensors"),
    ),
    "golden": Writer(
        f"golden record {{here}}/m.gguf --tokens {TOKENS} --numerics numpy -o {{here}}/out.safetensors", written("out.safetensors")
    ),
    "sweep": Writer(
        f"sweep {{here}}/m.gguf --all {PROBES} --numerics numpy -o {{here}}/out.db", ledger, ("out.db-wal", "out.db-shm"), True
    ),
    "warmup": Writer("warmup {here}/m.gguf --numerics oracle", kernels),
}
AT_ONCE = ("surgery", "trace", "golden")  # there whole or not at all


def run(words: list[str], here: Path) -> None:
    """A command in this process, whose output nobody reads; a warm-up has a cache of its own."""
    if words[0] == "warmup":
        os.environ["NUMBA_CACHE_DIR"] = str(here / "cache")
    sys.stdout = sys.stderr = open(os.devnull, "w")
    os.setpgrp()  # its workers die with it
    app(words, standalone_mode=False)


def started(words: list[str], here: Path) -> multiprocessing.process.BaseProcess:
    child = CONTEXT.Process(target=run, args=(words, here))
    child.start()
    return child


def finished(words: list[str], here: Path) -> float:
    """Run a command to its end. Returns the seconds that it took."""
    start, child = time.perf_counter(), started(words, here)
    child.join()
    assert child.exitcode == 0, f"{words[0]} ends with {child.exitcode}"
    return time.perf_counter() - start


def gone(group: int) -> None:
    """Wait until the workers of a killed process have seen that it is gone."""
    while any(lives_in(group, stat) for stat in Path("/proc").glob("[0-9]*/stat")):
        time.sleep(0.02)


def lives_in(group: int, stat: Path) -> bool:
    """Whether a process belongs to a group, and is more than an entry that nobody has collected."""
    try:
        state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(its_group) == group and state != "Z"


def until(true: Callable[[], bool], children: list[multiprocessing.process.BaseProcess]) -> None:
    """Wait until something is true, or a child has ended."""
    while not true() and all(child.is_alive() for child in children):
        time.sleep(0.0005)


def strangers(here: Path, allowed: Iterable[str]) -> list[str]:
    """Names in a folder that nobody expects; of a cache, files that no kernel has."""
    names = [path.name for path in here.iterdir() if path.name not in {"m.gguf", "t.txt", "cache", *allowed}]
    return names + [str(path.relative_to(here)) for path in (here / "cache").rglob("*") if ".tmp." in path.name]


class Round:
    """One folder in which a command is killed a few times and then ends."""

    def __init__(self, name: str, here: Path, sources: dict[str, bytes]) -> None:
        self.name, self.here, self.writer, self.sources = name, here, WRITERS[name], sources
        here.mkdir()
        for file, content in sources.items():
            (here / file).write_bytes(content)
        self.words = self.writer.words.format(here=here).split()

    def killed(self, r: random.Random, seconds: float, several: bool) -> dict[str, object] | None:
        """Kill it once and look at what it left; None if it ended before."""
        begun, before = time.perf_counter(), set(self.here.rglob("*"))
        children = [started(self.words, self.here) for _ in range(1 + several)]
        after = r.uniform(0, seconds)
        if waits := r.random() < 0.5:
            until(lambda: set(self.here.rglob("*")) != before, children)
            after = r.uniform(0, WRITING * seconds)
        for child in children:
            child.join(after / len(children))
        alive = [child for child in children if child.is_alive()]
        if not alive:
            return None
        after = time.perf_counter() - begun
        for child in r.sample(alive, r.randint(1, len(alive))):
            os.kill(child.pid or 0, signal.SIGKILL)
        for child in children:
            child.join()
            gone(child.pid or 0)
        self.unchanged()
        left = strangers(self.here, ())
        return {"command": self.name, "after": round(after, 3), "waited": waits, "left": left, "whole": self.whole(left)}

    def whole(self, left: list[str]) -> bool:
        """Whether an output is there; AssertionError for one that is not the output of an undisturbed run."""
        outputs = [
            name for name in left if not partial.NAME.fullmatch(name) and name not in self.writer.loose and ".tmp." not in name
        ]
        if self.name in AT_ONCE and outputs:
            assert self.writer.content(self.here) == self.expected, f"{outputs} is not whole"
        return bool(outputs)

    def unchanged(self) -> None:
        for file, content in self.sources.items():
            assert (self.here / file).read_bytes() == content, f"{file} was changed"

    def ended(self) -> float:
        """Run it to its end: what it wrote is what an undisturbed run writes, and nothing else is there."""
        seconds = finished(self.words, self.here)
        output = [name for name in ("out.gguf", "out.safetensors", "out.db") if (self.here / name).exists()]
        assert not (left := strangers(self.here, output)), f"left over: {left}"
        self.unchanged()
        return seconds

    expected: object = None


def campaign(name: str, folder: Path, file: Path, count: int, r: random.Random) -> None:
    """So many kills of one command, those included that the file already has."""
    lines = file.read_text().splitlines() if file.exists() else []
    done = sum(json.loads(line)["command"] == name for line in lines)
    source, text = tiny.build(folder / "m.gguf", "llama", n_layer=1 if name == "warmup" else 7), english.TEXT[:400]
    sources = {"m.gguf": source.read_bytes(), "t.txt": text.encode()}
    undisturbed, met, rounds = Round(name, folder / f"{name}-whole", sources), Counter[str](), 0
    seconds = min(undisturbed.ended() for _ in range(1 if name == "warmup" else 3))  # the first one loads what the others have
    expected = undisturbed.writer.content(undisturbed.here)
    while done < count:
        rounds += 1
        one = Round(name, folder / f"{name}-{rounds}", sources)
        one.expected = expected
        for _ in range(EACH):
            if row := one.killed(r, seconds, one.writer.several and bool(rounds % 2)):
                done += 1
                met[
                    "with an output" if row["whole"] else "with something left" if row["left"] else "before anything was there"
                ] += 1
                with file.open("a") as lines_of:
                    lines_of.write(json.dumps(row) + "\n")
        one.ended()
        assert one.writer.content(one.here) == expected, f"{name}: differs from an undisturbed run"
        print(f"{name}: {done} kills, in this run {dict(met)}: nothing half-written, nothing left", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=["all", *WRITERS])
    parser.add_argument("file", type=Path, help="a line for each kill")
    parser.add_argument("--count", type=int, default=100, help="kills of each command at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = list(WRITERS) if "all" in arguments.commands else arguments.commands
    with TemporaryDirectory(prefix="refmodel-") as folder:
        for name in names:
            here = Path(folder) / f"of-{name}"
            here.mkdir()
            campaign(name, here, arguments.file, arguments.count, random.Random(f"{name} {arguments.seed}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
