"""The tensor types: how a packed row becomes floats."""

import gguf.quants
import numpy as np
from gguf import GGMLQuantizationType as T

from ..arrays import F32, Blocks, Bytes
from ..errors import TensorError
from . import bf16, f16, f32, iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
from .integers import Floats, Integers, Quant

FLOATS: dict[T, Floats] = {T.F32: f32, T.F16: f16, T.BF16: bf16}
QUANTS: dict[T, Quant] = {
    T.Q4_0: q4_0,
    T.Q4_1: q4_1,
    T.Q5_0: q5_0,
    T.Q5_1: q5_1,
    T.Q8_0: q8_0,
    T.Q2_K: q2_k,
    T.Q3_K: q3_k,
    T.Q4_K: q4_k,
    T.Q5_K: q5_k,
    T.Q6_K: q6_k,
    T.IQ4_NL: iq4_nl,
    T.IQ4_XS: iq4_xs,
    T.MXFP4: mxfp4,
}
LAYOUTS: dict[T, Floats | Quant] = {**FLOATS, **QUANTS}


def dequantize(kind: T, rows: Bytes) -> F32:
    """Packed rows [O, bytes of a row] -> float32 [O, I], bit-equal to gguf-py and ggml.

    Types without a module here go through the gguf package. Raises TensorError where that cannot decode them either.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # a scale may be inf or NaN: then so are its weights
        if kind in QUANTS:
            weights = integers(kind, rows).floats()  # [O, N, W]
            return weights.reshape(len(rows), weights.shape[1] * weights.shape[2])
        if kind in FLOATS:
            return FLOATS[kind].floats(blocks(rows, FLOATS[kind].BLOCK))
        return _by_gguf(kind, rows)


def integers(kind: T, rows: Bytes) -> Integers:
    """Packed rows [O, bytes of a row] of a type in QUANTS, taken apart into N blocks each."""
    return QUANTS[kind].integers(blocks(rows, QUANTS[kind].BLOCK))


def blocks(rows: Bytes, layout: np.dtype[np.void]) -> Blocks:
    """Packed rows [O, bytes of a row] -> [O, N]."""
    return np.ascontiguousarray(rows).view(layout)


def _by_gguf(kind: T, rows: Bytes) -> F32:
    try:
        return gguf.quants.dequantize(rows, kind)
    except NotImplementedError:
        known = ", ".join(t.name for t in LAYOUTS)
        raise TensorError(f"tensor type {kind.name} cannot be decoded; known are {known}") from None
