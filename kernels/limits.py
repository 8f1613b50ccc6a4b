"""What the machine can do at most: bytes read from memory, and multiply-adds of 8-bit numbers. No twins: only their time counts."""

from numba import njit, prange

from .simd import Vec, dot4_u8i8, hsum, load, splat
from .static import within

i32x32, u8x128, i8x128 = Vec("i", 32, 32), Vec("u", 8, 128), Vec("i", 8, 128)
STREAMS = 4  # far apart, for each thread: several are faster than one


@within
def _read_share(data, start, length):
    total = splat(i32x32, 0)
    for i in range(0, length, 128):
        for s in range(STREAMS):
            total += load(i32x32, data, start + s * length + i)
    return hsum(total)


@njit(parallel=True, cache=True)
def read(data, out):
    """Read data [n] uint8, n a multiple of 512 times the threads; out [threads] int32 keeps sums, so that nothing is left out."""
    length = data.size // (len(out) * STREAMS) // 128 * 128
    for t in prange(len(out)):
        out[t] = _read_share(data, t * STREAMS * length, length)


@within
def _multiply_share(data, times):
    a, b = load(u8x128, data, 0), load(u8x128, data, 128)
    total, other = splat(i32x32, 0), splat(i32x32, 0)
    for i in range(times):
        factor = splat(i8x128, i)  # not the same twice in a row, or the work would be taken out of the loop
        total += dot4_u8i8(a, factor)
        other += dot4_u8i8(b, factor)
    return hsum(total) + hsum(other)


@njit(parallel=True, cache=True)
def multiply(data, times, out):
    """256 · times multiply-adds of 8-bit numbers in each thread, from registers; out [threads] int32 as above."""
    for t in prange(len(out)):
        out[t] = _multiply_share(data, times)
