"""Memory: what is free on this machine, what its caches hold, what this process takes. Linux; elsewhere nothing is known."""

import threading
from pathlib import Path
from types import TracebackType

from ..errors import MemoryLimitError

MEMINFO, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def available() -> int | None:
    """Bytes that the machine can give without swapping, within the limit of the control group; None if neither is known.

    Pages of mapped files count as free: the weights of a model can be read again from the file.
    """
    known = [amount for amount in (of_machine(), of_group()) if amount is not None]
    return min(known, default=None)


def require(needed: int, what: str, instead: str) -> None:
    """MemoryLimitError if so many bytes would make the machine swap: `what` takes them, and `instead` says what to do."""
    free = available()
    if free is not None and needed > free:
        gib = "{:.2f} GiB".format
        raise MemoryLimitError(f"{what} take {gib(needed / 2**30)}; {gib(free / 2**30)} of memory are free: {instead}")


def of_machine() -> int | None:
    """Bytes that the machine can give without swapping, MemAvailable of Linux; None elsewhere."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def of_group() -> int | None:
    """Bytes that memory.max leaves above the group's anonymous pages (control groups, version 2); None without a limit."""
    limit, stat = GROUP / "memory.max", GROUP / "memory.stat"
    if not (limit.exists() and stat.exists()) or (most := limit.read_text().strip()) == "max":
        return None
    used = next((int(line.split()[1]) for line in stat.read_text().splitlines() if line.startswith("anon ")), 0)
    return max(0, int(most) - used)


def beyond_caches(least: int) -> int:
    """A number of bytes that no cache holds: three times the largest cache, at least `least`, at most a gibibyte."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    largest = max((int(size.removesuffix("K")) << 10 for size in sizes if size.endswith("K")), default=0)
    return min(max(least, 3 * largest), 1 << 30)


def anonymous() -> int | None:
    """Bytes of anonymous memory of this process now: heaps, arrays, compiled code. None where the system is not Linux."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), None)


class Peak:
    """The most anonymous memory while the `with` block runs, read every few milliseconds.

    every  seconds between two readings
    bytes  the most so far; None if the system does not say
    """

    def __init__(self, every: float = 0.02) -> None:
        self.bytes, self.every = anonymous(), every
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            self._look()

    def _look(self) -> None:
        if self.bytes is not None:
            self.bytes = max(self.bytes, anonymous() or 0)

    def __enter__(self) -> "Peak":
        if self.bytes is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._look()
