"""Twin of ops.linear, in two steps: a panel of rows is decoded, then multiplied while it is still in the cache."""

from numba import njit, prange

from . import bf16, f16, f32, q4_0, q4_1, q4_k, q5_k, q6_k, q8_0

PANEL = 1 << 18  # weights decoded at once: 1 MB of float32
DECODERS = {
    "F32": f32.dequantize,
    "F16": f16.dequantize,
    "BF16": bf16.dequantize,
    "Q4_0": q4_0.dequantize,
    "Q4_1": q4_1.dequantize,
    "Q8_0": q8_0.dequantize,
    "Q4_K": q4_k.dequantize,
    "Q5_K": q5_k.dequantize,
    "Q6_K": q6_k.dequantize,
}


@njit(fastmath={"contract", "reassoc", "nsz"})
def dot(a, b):
    """The sum of a · b in the dtype of b, in an order that depends on the length alone."""
    total = b.dtype.type(0)
    for i in range(b.size):
        total += a[i] * b[i]
    return total


@njit(parallel=True, cache=True)
def product(panel, x, out):
    """out[t, o] = panel[o] · x[t]: panel [O, I] float32, x [T, I] float32 or float64, out [T, O] of the dtype of x.

    One element is one `dot`, so that its bits depend on its row and its token alone.
    """
    for o in prange(panel.shape[0]):
        for t in range(x.shape[0]):
            out[t, o] = dot(panel[o], x[t])
