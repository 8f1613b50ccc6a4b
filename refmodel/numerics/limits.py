"""The machine's limits, measured in about a second: with them a profile says how much of the machine a step used."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ..kernels import machine_limits as kernels
from ..machine.memory import beyond_caches
from . import packed

SIZE = beyond_caches(1 << 27)  # bytes
TIMES = 1 << 20


@dataclass(frozen=True)
class MachineLimits:
    """What the machine can do in a second, with the threads that are in use.

    bytes          read from memory in a second
    multiply_adds  of 8-bit numbers in a second
    """

    bytes: float
    multiply_adds: float


def measured() -> MachineLimits:
    """Measure the machine's limits: the best of a few tries with the threads that are in use; about a second."""
    data, sums = np.zeros(SIZE, np.uint8), np.zeros(numba.get_num_threads(), np.int32)
    data[:] = 1  # pages of zeros that were never written are all one page
    return MachineLimits(SIZE / best(lambda: kernels.read(data, sums), 5), multiply_adds(sums))


def multiply_adds(sums: NDArray[np.int32]) -> float:
    """Multiply-adds of 8-bit numbers in a second, with a thread for each of `sums`."""
    if packed.matrices():
        seconds = best(lambda: kernels.multiply_matrices(TIMES // 64, sums), 3)
        return kernels.MULTIPLIED_BY_MATRICES * (TIMES // 64) * len(sums) / seconds
    few = np.ones(kernels.MULTIPLIED, np.uint8)
    return kernels.MULTIPLIED * TIMES * len(sums) / best(lambda: kernels.multiply(few, TIMES, sums), 3)


def best(run: Callable[[], None], tries: int) -> float:
    """Seconds of the fastest of `tries` runs, after one that is not timed."""
    run()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
