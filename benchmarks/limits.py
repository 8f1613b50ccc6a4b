"""What the memory of this machine allows: pure reading in several streams, and pure filling past the caches.

This module and `ours` are the only ones here that name a kernel of refmodel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from refmodel.kernels.language.memory import store_past_caches
from refmodel.kernels.language.reshaping import splat
from refmodel.kernels.language.vectors import Vec
from refmodel.machine.memory import beyond_caches

from .arrays import zeros
from .turns import alternate, sides

LINE = Vec("f", 32, 16)
STREAMS = 4  # for each thread, far apart: more than one keeps the prefetchers of both common vendors busy
BYTES = beyond_caches(1 << 28)
TURNS = 9
NOT_ZERO = np.float32(1.7)  # zeros are written three times as fast, and nobody wants to decode zeros


@njit(cache=True)
def sum_of_streams(a: Any) -> Any:
    """The sum of a [streams, n]: loads, and one addition for each."""
    first, second, third, fourth = a[0], a[1], a[2], a[3]
    total = np.uint64(0)
    for i in range(first.size):
        total += (first[i] ^ second[i]) ^ (third[i] ^ fourth[i])
    return total


@njit(parallel=True, cache=True)
def read(a: Any, totals: Any) -> None:
    """Read a [threads, streams, n] once; totals [threads] takes the sums."""
    for t in prange(a.shape[0]):
        totals[t] = sum_of_streams(a[t])


@njit(cache=True)
def fill_one(out: Any, start: int, stop: int) -> None:
    """Write the bytes `start` to `stop` of out once, past the caches."""
    value = splat(LINE, NOT_ZERO)
    for i in range(start, stop, 64):
        store_past_caches(out, i, value)


@njit(parallel=True, cache=True)
def fill(out: Any, threads: int) -> None:
    """Write out [bytes] once, past the caches; its address is a multiple of 64."""
    share = out.size // threads // 64 * 64
    for t in prange(threads):
        fill_one(out, t * share, (t + 1) * share)


def reading(memory: Any, threads: int) -> Callable[[], None]:
    """A turn of reading an array's bytes once, except for fewer than 64 bytes at the end of each stream."""
    n = memory.size // (8 * threads * STREAMS)
    streams = memory[: 8 * threads * STREAMS * n].view(np.uint64).reshape(threads, STREAMS, n)
    totals = np.zeros(threads, np.uint64)
    return lambda: read(streams, totals)


def filling(size: int, threads: int) -> Callable[[], None]:
    """A turn of filling `size` bytes of its own."""
    memory = zeros((size,), np.uint8)
    return lambda: fill(memory, threads)


def bandwidth(threads: int) -> dict[str, float]:
    """Median GB/s: {"read": ..., "fill": ...}."""
    memory = zeros((BYTES,), np.uint8)
    memory[:] = np.resize(np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8), BYTES)
    seconds = alternate(sides(reading(memory, threads), filling(BYTES, threads)), TURNS)
    return {name: BYTES / 1e9 / float(np.median(values)) for name, values in zip(("read", "fill"), seconds, strict=True)}
