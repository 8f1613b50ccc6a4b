"""Half floats in kernels: Numba has no float16 on the CPU, so they are built from their bits."""

import numpy as np
from numba import njit


@njit
def as_float(bits):
    """The float32 of these 32 bits; Numba widens unsigned arithmetic to 64 bits, so it is cut to size first."""
    return np.uint32(bits).view(np.float32)


@njit
def half(low, high):
    """The float32 that equals the half float of two bytes, low byte first; infinities, NaNs and subnormals too."""
    bits = np.uint32(low) | np.uint32(high) << 8
    magnitude = (bits & 0x7FFF) << 13
    sign = np.float32(-1.0) if bits >> 15 else np.float32(1.0)
    if magnitude >= 0x0F800000:  # all exponent bits set: infinity or NaN
        return sign * as_float(magnitude | 0x7F800000)
    return sign * (as_float(magnitude) * np.float32(2.0**112))  # exact: the exponent moves from bias 15 to bias 127
