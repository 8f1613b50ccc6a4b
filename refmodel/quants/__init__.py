"""The tensor types: how a packed row becomes floats."""

from typing import cast

import numpy as np
from gguf import GGMLQuantizationType as T

from ..arrays import F32, Blocks, Bytes
from ..errors import TensorError
from . import (
    bf16,
    f16,
    f32,
    iq1_m,
    iq1_s,
    iq2_s,
    iq2_xs,
    iq2_xxs,
    iq3_s,
    iq3_xxs,
    iq4_nl,
    iq4_xs,
    mxfp4,
    nvfp4,
    q1_0,
    q2_0,
    q2_k,
    q3_k,
    q4_0,
    q4_1,
    q4_k,
    q5_0,
    q5_1,
    q5_k,
    q6_k,
    q8_0,
    tq1_0,
    tq2_0,
)
from .integers import Floats, Integers, Quant
from .types import Newer

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
DECODED: dict[T, Quant] = {  # packed types whose rows are decoded before they are multiplied
    T.IQ2_XXS: iq2_xxs,
    T.IQ2_XS: iq2_xs,
    T.IQ2_S: iq2_s,
    T.IQ3_XXS: iq3_xxs,
    T.IQ3_S: iq3_s,
    T.IQ1_S: iq1_s,
    T.IQ1_M: iq1_m,
    T.TQ1_0: tq1_0,
    T.TQ2_0: tq2_0,
    **{cast(T, kind): quant for kind, quant in ((Newer.NVFP4, nvfp4), (Newer.Q1_0, q1_0), (Newer.Q2_0, q2_0))},
}
PACKED = {**QUANTS, **DECODED}
LAYOUTS: dict[T, Floats | Quant] = {**FLOATS, **PACKED}


def dequantize(kind: T, rows: Bytes) -> F32:
    """Packed rows [O, bytes of a row] -> float32 [O, I], bit-equal to gguf-py and ggml.

    Raises TensorError for a type that has no weights to decode: whole numbers, and what only products round to (Q8_1, Q8_K).
    """
    with np.errstate(invalid="ignore", over="ignore"):  # a scale may be inf or NaN: then so are its weights
        if kind in PACKED:
            weights = integers(kind, rows).floats()  # [O, N, W]
            return weights.reshape(len(rows), weights.shape[1] * weights.shape[2])
        if kind in FLOATS:
            return FLOATS[kind].floats(blocks(rows, FLOATS[kind].BLOCK))
    raise TensorError(not_decoded("a tensor", kind))


def not_decoded(name: str, kind: T) -> str:
    """The message for a tensor of a type that is not in LAYOUTS: why it cannot be run, and what to do; `name` is the tensor's."""
    known = ", ".join(t.name for t in LAYOUTS)
    return f"{name} is {kind.name}, which holds no weights to multiply with; expected one of {known}. Convert the model again."


def integers(kind: T, rows: Bytes) -> Integers:
    """Packed rows [O, bytes of a row] of a type in PACKED -> Integers of blocks [O, N]."""
    return PACKED[kind].integers(blocks(rows, PACKED[kind].BLOCK))


def blocks(rows: Bytes, layout: np.dtype[np.void]) -> Blocks:
    """Packed rows [O, bytes of a row] -> blocks [O, N] with the fields of that layout."""
    return np.ascontiguousarray(rows).view(layout)
