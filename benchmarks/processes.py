"""What a user waits for and pays: the start of the program, a first run without a cache, memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import goals
from .bench import Bench
from .model import file
from .results import Row, alone

GOLDEN = Path(__file__).parent.parent / "golden" / "models" / "qwen35-Q4_K_M.gguf"
COLD_RUNS = 3
INTERVAL = 0.01  # seconds between looks at the memory of a child


def refmodel(*words: str) -> list[str]:
    """The command line of a refmodel command in this Python."""
    return [sys.executable, "-m", "refmodel", *words]


def first_byte(command: Sequence[str], env: dict[str, str]) -> float:
    """Seconds from the start of a process to its first byte of output. SystemExit if it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as child:
        assert child.stdout
        found = child.stdout.read(1)
        seconds = time.perf_counter() - start
        child.stdout.read()
    if child.returncode or not found:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}; run it by itself to see why")
    return seconds


def start(bench: Bench) -> Iterator[Row]:
    """The row of group `start`: a warm `refmodel run` of the tiny golden, from the start of the process to the first token."""
    command = refmodel("run", str(GOLDEN), "--tokens", "1,2,3", "-n", "1")
    seconds = [first_byte(command, dict(os.environ)) for _ in range(1 + bench.pairs)][1:]
    yield Row("start", "first token of the tiny golden", goals.START, unit="s", **alone(seconds))


def cold(bench: Bench) -> Iterator[Row]:
    """The row of group `cold`: the first run with an empty kernel cache; 16 tokens are read, two are written."""
    from refmodel.cli import app

    path = str(file(bench, "q35-4b-4-8k"))
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    words = [["warmup", path]] if "warmup" in known else []
    words.append(["run", path, "--tokens", ",".join(map(str, range(16))), "-n", "2"])
    seconds = []
    for _ in range(min(COLD_RUNS, bench.pairs)):
        with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
            begin = time.perf_counter()
            for command in words:
                subprocess.run(refmodel(*command), env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begin)
    note = " and ".join(command[0] for command in words)
    yield Row("cold", "first run, empty cache", goals.COLD, unit="s", note=note, **alone(seconds))


def memory(bench: Bench) -> Iterator[Row]:
    """Rows of group `memory`: peak anonymous memory of a process that reads 512 tokens and makes the logits of the last."""
    for name in bench.files:
        tokens = ",".join(str(7 * i % 4096) for i in range(512))
        megabytes, _ = peak(refmodel("run", str(file(bench, name)), "--tokens", tokens, "-n", "1"))
        yield Row("memory", f"{name[4:]}, 512 tokens", goals.MEMORY, unit="MB", **alone([megabytes]))


def peak(command: Sequence[str]) -> tuple[float, float]:
    """Run a command. Returns its peak RssAnon in MB, sampled often, and its seconds. SystemExit if it fails. Linux only."""
    start, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                continue
            most = max([most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
            time.sleep(INTERVAL)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}; run it by itself to see why")
    return most / 1024, time.perf_counter() - start
