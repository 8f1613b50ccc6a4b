"""Where the time of a run goes: a numerics whose functions are timed, and a tapper that knows where a block ends."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np

from ..arrays import F
from ..numerics import Numerics
from ..numerics.limits import MachineLimits


@dataclass
class Spent:
    """What was spent on one thing.

    phase          prompt, or decode: from the first pass of a single token on
    name           an operation, a kind of block, or a remainder
    calls          how often
    seconds        wall time
    bytes          read and written
    multiply_adds  of products
    """

    phase: str
    name: str
    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0
    multiply_adds: int = 0

    def share_of_limit(self, limits: MachineLimits) -> float | None:
        """The least time that its bytes or multiply-adds take on this machine, over the time it took. None: it moves nothing."""
        least = max(self.bytes / limits.bytes, self.multiply_adds / limits.multiply_adds)
        return least / self.seconds if least and self.seconds else None


ENDS = {"mtp_post_ffn": "prediction block", "result_output": "head", "mtp_result_output": "draft head"}  # taps that end a place


class Timing:
    """A tapper, and a numerics made from another one, that record time. A pass begins with `embed`; a block ends with its l_out.

    kinds  of the blocks of the route, position by position
    clock  returns seconds
    """

    def __init__(self, kinds: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        self.kinds, self.clock = kinds, clock
        self.operations: dict[tuple[str, str], Spent] = {}
        self.places: dict[tuple[str, str], Spent] = {}
        self.total = 0.0
        self.phase, self._since = "prompt", 0.0
        self._here: list[Spent] = []  # of the place that the pass is at
        self._inside = False

    def numerics(self, num: Numerics) -> Numerics:
        """The same numerics with every function timed."""
        values: dict[str, Any] = {field.name: getattr(num, field.name) for field in fields(num)}
        functions = {name: f for name, f in values.items() if callable(f) and not isinstance(f, type)}
        timed: dict[str, Any] = {name: self._timed(name, f) for name, f in functions.items()}
        return replace(num, **timed)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A context around the run; the rows add up to its time."""
        start = self.clock()
        yield
        self.total += self.clock() - start

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            if self._inside:  # one function of the record may use another
                return function(*args)
            self._inside, start = True, self.clock()
            if name == "embed":
                self.phase, self._since = "decode" if len(args[1]) == 1 else self.phase, start
            try:
                result = function(*args)
            finally:
                self._inside = False
            seconds = self.clock() - start
            self._here.append(
                Spent(self.phase, label(name, args), 1, seconds, moved(name, args, result), multiply_adds(name, args))
            )
            return result

        return timed

    def __call__(self, name: str, x: F) -> F:
        stem, _, position = name.partition("-")
        if stem == "l_out":
            self._ended(self.kinds[int(position)])
        elif stem in ENDS:
            self._ended(ENDS[stem])
        return x

    def _ended(self, kind: str) -> None:
        """A block, or a part of the head: what was measured since the last one belongs to it."""
        now = self.clock()
        place = self.places.setdefault((self.phase, kind), Spent(self.phase, kind))
        place.calls += 1
        place.seconds += now - self._since
        for row in self._here:
            place.bytes += row.bytes
            place.multiply_adds += row.multiply_adds
            add(self.operations.setdefault((row.phase, row.name), Spent(row.phase, row.name)), row)
        self._here, self._since = [], now

    def by_operation(self) -> list[Spent]:
        """A row for each operation, the slowest first, then the rest of the passes; with `between` they add up to the total."""
        left = defaultdict[str, float](float)
        for place in self.places.values():
            left[place.phase] += place.seconds
        for row in self.operations.values():
            left[row.phase] -= row.seconds
        ranked = sorted(self.operations.values(), key=lambda row: (row.phase != "prompt", -row.seconds))
        rest = [Spent(phase, "rest: sums, copies, Python", seconds=seconds) for phase, seconds in left.items()]
        return [*ranked, *rest, self.between()]

    def by_place(self) -> list[Spent]:
        """A row for each kind of block, the slowest first; with `between` they add up to the total."""
        ranked = sorted(self.places.values(), key=lambda row: (row.phase != "prompt", -row.seconds))
        return [*ranked, self.between()]

    def between(self) -> Spent:
        """The time outside of passes: choosing tokens, text, the start of the first pass."""
        return Spent("", "between passes: sampling, text", seconds=self.total - sum(row.seconds for row in self.places.values()))


def add(to: Spent, row: Spent) -> None:
    """Add a row to another one in place."""
    to.calls += row.calls
    to.seconds += row.seconds
    to.bytes += row.bytes
    to.multiply_adds += row.multiply_adds


def label(name: str, args: tuple[Any, ...]) -> str:
    """The name of an operation; a product is named by the role of its matrix and the type: `ffn_down Q4_K`."""
    if name != "linear":
        return name
    role = args[0].name.removesuffix(".weight")
    return f"{role.split('.', 2)[2] if role.startswith('blk.') else role} {args[0].type.name}"


def moved(name: str, args: tuple[Any, ...], result: Any) -> int:
    """The bytes of an operation's inputs, results and matrix; of an embedding only the rows that are read."""
    results = result if isinstance(result, tuple) else (result,)
    arrays = sum(x.nbytes for x in (*args, *results) if isinstance(x, np.ndarray))
    packed = sum(x.rows.nbytes for x in args if hasattr(x, "rows"))
    return arrays + (packed // args[0].shape[0] * len(args[1]) if name == "embed" else packed)


def multiply_adds(name: str, args: tuple[Any, ...]) -> int:
    """The multiply-adds of a product; 0 for other operations."""
    return prod(args[0].shape) * len(args[1]) if name == "linear" else 0
