"""Half floats in kernels: Numba has no float16 on the CPU, so they are built from their bits."""

import numpy as np
from numba import njit

from .ieee import float_of


@njit
def half(low, high):
    """The float32 that equals the half float of two bytes, low byte first; infinities, NaNs and subnormals too."""
    bits = np.uint32(low) | np.uint32(high) << 8
    magnitude = (bits & 0x7FFF) << 13
    sign = np.float32(-1.0) if bits >> 15 else np.float32(1.0)
    if magnitude >= 0x0F800000:  # all exponent bits set: infinity or NaN
        return sign * float_of(magnitude | 0x7F800000)
    return sign * (float_of(magnitude) * np.float32(2.0**112))  # exact: the exponent moves from bias 15 to bias 127
