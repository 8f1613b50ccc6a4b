"""Arrays at addresses that ggml and streaming stores want."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros at an address that is a multiple of 64; every page has been written to."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    raw[:] = 0
    at = -raw.ctypes.data % ALIGNMENT
    return raw[at : at + size].view(dtype).reshape(shape)


def aligned(data: NDArray[Any]) -> NDArray[Any]:
    """The array itself if it is contiguous at a multiple of 64 bytes, else such a copy."""
    if data.flags.c_contiguous and data.ctypes.data % ALIGNMENT == 0:
        return data
    copy = zeros(data.shape, data.dtype)
    copy[...] = data
    return copy
