"""The assertions of the suite."""

from functools import cache
from typing import Any

import numba
import numpy as np


@cache
def from_python(kernel: Any) -> Any:
    """What calls a function that only kernels call."""

    @numba.njit
    def call(*arguments: Any) -> Any:
        return kernel(*arguments)

    return call


def same_bits(a: Any, b: Any) -> None:
    """Equal dtype, shape and bytes; NaNs of one payload are equal, zeros of two signs are not."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    differ = np.flatnonzero(a.reshape(-1).view(np.uint8) != b.reshape(-1).view(np.uint8))
    at = differ[0] // a.itemsize if differ.size else 0
    assert not differ.size, f"{differ.size} bytes differ, first at element {at}: {a.reshape(-1)[at]} and {b.reshape(-1)[at]}"


def near(got: Any, exact: Any, ulps: float) -> None:
    """The root-mean-square error of float32 (or float64) results against the float64 truth, in units of eps · rms(exact)."""
    got, exact = np.asarray(got), np.asarray(exact)
    assert got.shape == exact.shape
    error, size = got.astype(np.float64) - exact, np.sqrt(np.mean(np.square(exact)))
    found = np.sqrt(np.mean(np.square(error))) / (np.finfo(got.dtype).eps * size) if size else np.abs(error).max(initial=0)
    assert found <= ulps, f"{found:.2f} ulps away, allowed {ulps}"


def nmse(a: Any, b: Any) -> float:
    """Σ(a−b)² / Σb² in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.sum((a - b) ** 2) / np.sum(b**2))


# NMSE between two float32 passes of a few blocks that differ in the order of sums only, or between one of them and float64: 1e-13
# to 1e-12 are usual, routes that repeat blocks amplify it.
FLOAT_ORDER = 1e-10
