"""Memory of this process that no file backs, and what a model needs of it."""

import threading
from pathlib import Path
from types import TracebackType

import numpy as np

from .model import Model

STATUS = Path("/proc/self/status")


def anonymous() -> int | None:
    """Bytes of anonymous memory now: heaps, arrays, compiled code. None where the system does not say (only Linux does)."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), None)


class Peak:
    """The most anonymous memory while the `with` block runs, looked at every few milliseconds. `bytes` is None if it is unknown."""

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


def needs(model: Model) -> dict[str, int]:
    """Bytes: the packed weights, which stay in the file's mapping; keys and values of 1000 tokens, and the delta rule's states,
    both in float32 under the file's own order of blocks."""
    states = [model.arch.new_state(model.hp, i, np.float32) for i in range(model.n_layer)]
    fixed = sum(state.bytes(0, np.float32) for state in states)
    return {
        "weights": sum(t.data.size for t in model.file.tensors.values()),
        "cache_of_1000_tokens": sum(state.bytes(1000, np.float32) for state in states) - fixed,
        "states": fixed,
    }
