"""The packed scales that Q4_K and Q5_K share."""

from numba import njit


@njit
def scale_and_minimum(packed, j):
    """The j-th 6-bit scale and minimum of the 12 bytes; the layout stands at quants.bits.scales_and_minima."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    return (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4), (packed[j + 4] >> 4) | (packed[j] >> 6 << 4)
