"""The other side in a process of its own: one JSON line asks for a turn, one answers with its own seconds.

Pools of threads of two programs in one machine get into each other's way while they spin, waiting for work. So whoever has
had a turn is given time to fall asleep, and what the waiting side uses of the processor meanwhile is measured and reported.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from .turns import Side

ROOT = Path(__file__).parent.parent
SETTLE = 0.03  # seconds after a turn; OpenMP's threads spin for less


class Child:
    """A process that answers requests; it ends with `close`, or with this process."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env, text=True)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer. SystemExit, with the end of the child's log, if the child dies."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its log says why
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise SystemExit(
            f"{' '.join(self.process.args)}: ended with status "  # type: ignore[arg-type]
            f"{self.process.wait()}: {' '.join(said)}; run it by itself"
        )

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        self.log.close()


def taking_turns(child: Child, ours: Sequence[Callable[[], Any]], **request: Any) -> tuple[list[Side], list[float]]:
    """The sides of an alternating measurement: ours, then the child's.

    ours     calls in this process
    request  what the child is asked in each of its turns

    Returns the sides, and a list that gets one number a turn: how much of a core the waiting side used.
    """
    spun: list[float] = []

    def mine(call: Callable[[], Any]) -> Side:
        def turn() -> float:
            time.sleep(SETTLE)
            before, start = child.ask(clock=True)["clock"], time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            spun.append((child.ask(clock=True)["clock"] - before) / seconds)
            return seconds

        return turn

    def theirs() -> float:
        time.sleep(SETTLE)
        before = time.process_time()
        seconds = float(child.ask(**request)["seconds"])
        spun.append((time.process_time() - before) / seconds)
        return seconds

    return [*(mine(call) for call in ours), theirs], spun


def environment(threads: int) -> dict[str, str]:
    """This process's environment with every pool set to `threads`, and without variables that change llama.cpp or OpenMP."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GGML_", "LLAMA_", "GOMP_", "OMP_"))}
    pools = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return kept | pools | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))}


def requests() -> Iterator[tuple[dict[str, Any], TextIO]]:
    """In the child: yield each request and the file that takes its answer. Requests for the clock are answered here.

    What libraries print goes to the log.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "clock" in request:
            answer(channel, clock=time.process_time())
        else:
            yield request, channel


def answer(channel: TextIO, **values: Any) -> None:
    """In the child: send an answer, a JSON object on one line."""
    print(json.dumps(values), file=channel, flush=True)
