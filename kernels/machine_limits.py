"""What the machine can do at most: bytes read from memory, and multiply-adds of 8-bit numbers. No twins: only their time counts."""

import numpy as np
from numba import njit, prange

from .language.arithmetic import hsum
from .language.compile_time import within
from .language.dots import dots_onto, no_sums
from .language.matrix_registers import ROOM, add_products, set_back, set_up, store_sums
from .language.memory import load
from .language.reshaping import convert, splat
from .language.vectors import REGISTER, Vec, i8, i32

STREAMS = 4  # far apart, for each thread: several are faster than one
SUMS = 16  # registers that are added to in turn: an instruction takes several cycles, and starts one or two in each
MULTIPLIED, LANES = SUMS * REGISTER // 8, SUMS * REGISTER // 32
MULTIPLIED_BY_MATRICES = 4 * 16 * 16 * 64
i32x32, u8s, i8s = Vec("i", 32, 32), Vec("u", 8, MULTIPLIED), Vec("i", 8, MULTIPLIED)


@within
def _read_share(data, start, length):
    total = splat(i32x32, 0)
    for i in range(0, length, 128):
        for s in range(STREAMS):
            total += load(i32x32, data, start + s * length + i)
    return hsum(total)


@njit(parallel=True, cache=True)
def read(data, out):
    """Read data [n] uint8 once; n is a multiple of 512 times the threads. out [threads] int32 takes sums, so all is loaded."""
    length = data.size // (len(out) * STREAMS) // 128 * 128
    for t in prange(len(out)):
        out[t] = _read_share(data, t * STREAMS * length, length)


@within
def _multiply_share(data, times):
    total = no_sums(LANES)
    for i in range(times):
        total = dots_onto(total, splat(u8s, i), load(i8s, data, 0), SUMS)  # codes change, or it is done once
    return hsum(convert(i32, total))


@njit(parallel=True, cache=True)
def multiply(data, times, out):
    """Do MULTIPLIED · times multiply-adds of 8-bit numbers in each thread, from the first cache. out [threads] int32 takes sums."""
    for t in prange(len(out)):
        out[t] = _multiply_share(data, times)


@within
def _multiply_share_of_matrices(times):
    room, sums = np.zeros(ROOM, np.uint8), np.zeros(16 * 16, np.int32)
    set_up(room, 64)
    for _ in range(times):
        add_products(room, i8, 0, 4, 6)
        add_products(room, i8, 1, 5, 6)
        add_products(room, i8, 2, 4, 7)
        add_products(room, i8, 3, 5, 7)
    store_sums(room, 0, sums, 0)
    set_back(room)
    return sums[0]


@njit(parallel=True, cache=True)
def multiply_matrices(times, out):
    """The same with matrix registers: MULTIPLIED_BY_MATRICES · times in each thread."""
    for t in prange(len(out)):
        out[t] = _multiply_share_of_matrices(times)
