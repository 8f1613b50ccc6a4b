"""Twin of quants.f16: rows of packed blocks -> float32, bit for bit."""

from numba import njit, prange

from .half import half


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for i in range(out.shape[1]):
            out[o, i] = half(rows[o, 2 * i], rows[o, 2 * i + 1])
