"""The passes of a sweep on a Ray cluster: the routes go out in subtrees, and the subtree of a worker that dies is run again.

Only the workers compute. Each maps the model's file, which has to be under the same path on every machine; the ledger is written
by the process that runs the sweep.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..arrays import F
from ..errors import SweepError
from ..machine.memory import available
from ..model.elevator import Work
from ..model.model import Model, load
from ..model.route import Route
from ..numerics import numerics_of
from .engines import Local, Probe
from .ledger import Outcome

AGAIN = 8  # times that a subtree is run again when its worker dies
PARTS = 3  # subtrees for each worker: the last ones end at nearly the same time

Answered = tuple[list[tuple[int, Outcome]], int]
"""What comes back of a subtree: (number of the route in it, outcome), and the executions of blocks that it took."""


@cache
def local(path: str, numerics: str, memory: int | None) -> Local:
    """The engine of a worker, made once in its process."""
    return Local(load(Path(path)), numerics_of(numerics), memory)


def subtree(at: tuple[str, str, int | None], probe: Probe, first: int, stop: int, routes: Sequence[Route]) -> Answered:
    """Run a subtree in a worker: the questions first to stop under each of its routes."""
    engine = local(*at)
    before = engine.batch.work.executions
    found = list(engine.run(probe, first, stop, routes))
    return found, engine.batch.work.executions - before


def parted(count: int, parts: int) -> list[range]:
    """The numbers 0 to count in at most `parts` runs of neighbours, as even as possible: neighbours share most of their work."""
    parts = min(parts, count)
    ends = [count * part // parts for part in range(parts + 1)] if parts else []
    return [range(a, b) for a, b in pairwise(ends)]


class OnRay:
    """A cluster. `work` counts what its workers computed.

    address  of the cluster, `auto`, or empty for one that is started on this machine
    memory   bytes that the states of each worker may take; None: half of what is free here, shared by as many workers
    """

    def __init__(self, model: Model, numerics: str, address: str = "", memory: int | None = None) -> None:
        self.model, self.numerics, self.work = model, numerics, Work()
        self.ray = started(address)
        self.workers = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        each = memory or (available() or 0) // (2 * self.workers) or None
        self.at = (str(model.path.resolve()), numerics, each)
        self.task: Any = self.ray.remote(num_cpus=1, max_retries=AGAIN)(subtree)
        self.here = Local(model, numerics_of(numerics), each)  # for what needs one pass only

    def unrouted(self, tokens: Sequence[int]) -> F:
        """The logits of the model in its own order, [T, V], computed here."""
        return self.here.unrouted(tokens)

    def run(self, probe: Probe, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, Outcome]]:
        """As Engine.run. SweepError if a subtree's workers died too often, or if a worker cannot use the model."""
        parts = parted(len(routes), PARTS * self.workers)
        running = {self.task.remote(self.at, probe, first, stop, [routes[n] for n in part]): part for part in parts}
        while running:
            (done, *_), _ = self.ray.wait(list(running))
            part = running.pop(done)
            try:
                found, executions = self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                raise SweepError(
                    f"--engine ray: a worker could not finish: {last_line(error)}; look at its log, and run again"
                ) from None
            self.work.executions += executions
            yield from ((part[number], outcome) for number, outcome in found)


def last_line(error: BaseException) -> str:
    """What an error says, in its last line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def started(address: str) -> Any:
    """Ray, joined to a cluster. SweepError without it, or without a cluster at that address."""
    try:
        import ray
    except ImportError:
        raise SweepError("--engine ray needs ray: pip install 'refmodel[ray]'") from None
    if not ray.is_initialized():
        where = {"address": address} if address else {"include_dashboard": False}
        paths = dict.fromkeys([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])  # where this refmodel is
        same = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
        try:
            ray.init(**where, log_to_driver=False, logging_level="error", runtime_env=same)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SweepError(
                f"--address {address or 'local'}: no cluster: {last_line(error)}; start one with `ray start --head`"
            ) from None
    return ray
