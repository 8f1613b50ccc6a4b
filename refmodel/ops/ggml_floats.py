"""llama.cpp's products of floats: the order of every sum, and the place of every rounding.

A float is cut from the front of x and y [..., n] -> [...]; what is in a tail is added one by one. `lanes` are the floats of a
register: 8 of AVX2, 16 of AVX-512. With 16 bfloats are multiplied in two ways, by the instruction for them or without it.
Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu: vec.cpp, simd-mappings.h, llamafile/sgemm.cpp, amx/mmq.cpp.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arrays import F32
from .ieee import f32, flushed, fma


def hsum(lanes: F32) -> F32:
    """The sum of 8 or 16 lanes [..., lanes] -> [...]: the upper half is added to the lower until one lane is left."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., half:] + lanes[..., :half]
    return lanes[..., 0]


def lanes_of(x: F32, y: F32, width: int) -> F32:
    """`width` accumulators [..., width] over the whole steps of x and y [..., n].

    Lane l sums the products of elements l, l + width, ... by fma.
    """
    acc = np.zeros((*np.broadcast_shapes(x.shape, y.shape)[:-1], width), f32)
    for start in range(0, x.shape[-1] // width * width, width):
        acc = fma(x[..., start : start + width], y[..., start : start + width], acc)
    return acc


def four_registers(x: F32, y: F32, lanes: int) -> F32:
    """The main part of ggml's vec_dot functions: four registers, (0 + 2) + (1 + 3), as one register [..., lanes]."""
    acc = lanes_of(x, y, 4 * lanes)
    a, b, c, d = (acc[..., k * lanes : (k + 1) * lanes] for k in range(4))
    return (a + c) + (b + d)


def pairwise(lanes: F32) -> F32:
    """The sum of 8 lanes [..., 8] -> [...]: halves as in hsum, then neighbours. Source: GGML_F32x8_REDUCE."""
    four = lanes[..., :4] + lanes[..., 4:]
    return (four[..., 0] + four[..., 1]) + (four[..., 2] + four[..., 3])


REDUCED = {8: pairwise, 16: hsum}


def dot_f32(x: F32, y: F32, lanes: int) -> F32:
    """Σ x · y of floats, [..., n] -> [...]. Source: ggml_vec_dot_f32."""
    start = x.shape[-1] // (4 * lanes) * 4 * lanes
    return added_as_compiled(x[..., start:], y[..., start:], REDUCED[lanes](four_registers(x, y, lanes)), lanes)


def added_as_compiled(x: F32, y: F32, total: F32, lanes: int) -> F32:
    """total [...] + Σ x · y of [..., n], in order: what the compiler makes of a plain loop.

    It multiplies whole registers and then half a register at once: these products have two roundings, the others one.
    """
    n, at_once = x.shape[-1], lanes // 2
    for i in range(n):
        total = total + x[..., i] * y[..., i] if i < n // at_once * at_once else fma(x[..., i], y[..., i], total)
    return total


def dot_f16(x: F32, y: F32, lanes: int) -> F32:
    """Σ x · y of half floats (as float32), [..., n] -> [...]. Source: ggml_vec_dot_f16."""
    return added_in_double(x, y, 4 * lanes, REDUCED[lanes](four_registers(x, y, lanes)))


def dot_bf16(x: F32, y: F32, lanes: int) -> F32:
    """Σ x · y of bfloats, [..., n] -> [...]. Registers of 16 have two sums, which meet in float64. Source: ggml_vec_dot_bf16."""
    if lanes == 8:
        return added_in_double(x, y, 32, hsum(four_registers(x, y, 8)))
    acc = lanes_of(x, y, 32)
    return added_in_double(x, y, 32, hsum(acc[..., :16]), hsum(acc[..., 16:]))


def added_in_double(x: F32, y: F32, step: int, *main: F32) -> F32:
    """The sums [...] of the whole steps, and the tail of a vec_dot: products are rounded to float32 and added in float64.

    x, y  [..., n]
    step  elements of a whole step
    main  the sums [...] of the whole steps
    """
    total, n = sum(part.astype(np.float64) for part in main), x.shape[-1]
    for i in range(n // step * step, n):
        total = total + (x[..., i] * y[..., i]).astype(np.float64)
    return np.asarray(total).astype(f32)


def dot_sgemm(x: F32, y: F32, lanes: int) -> F32:
    """Σ x · y in one register, [..., n] -> [...]; n is a multiple of its lanes. Source: llamafile_sgemm."""
    return hsum(lanes_of(x, y, lanes))


# ---- vdpbf16ps: lane l of a register takes the bfloats 2l + 1 and 2l, in this order; no number that goes in or out is subnormal


def pairs_of(x: F32, y: F32, width: int) -> F32:
    """`width` accumulators [..., width] over the whole steps of 2 · width bfloats of x and y [..., n]. Source: vdpbf16ps."""
    acc = np.zeros((*np.broadcast_shapes(x.shape, y.shape)[:-1], width), f32)
    for start in range(0, x.shape[-1] // (2 * width) * 2 * width, 2 * width):
        for first in (start + 1, start):
            a, b = (flushed(v[..., first : start + 2 * width : 2]) for v in (x, y))
            acc = flushed(fma(a, b, acc))
    return acc


def dot_bf16_pairs(x: F32, y: F32) -> F32:
    """Σ x · y of bfloats, [..., n] -> [...]: two registers, whose sums meet in float64. Source: ggml_vec_dot_bf16."""
    acc = pairs_of(x, y, 32)
    return added_in_double(x, y, 64, hsum(acc[..., :16]), hsum(acc[..., 16:]))


def dot_sgemm_pairs(x: F32, y: F32) -> F32:
    """Σ x · y of bfloats in one register of 16, [..., n] -> [...]; n is a multiple of 32. Source: llamafile_sgemm."""
    return hsum(pairs_of(x, y, 16))


def dot_amx(x: F32, y: F32) -> F32:
    """Σ x · y of half floats x with floats y that are not rounded, in one register of 16. Source: tinygemm_kernel_avx."""
    return dot_sgemm(x, y, 16)


@dataclass(frozen=True)
class Orders:
    """How a matrix of floats is multiplied: names of ORDERS.

    alone   one row with one token
    sgemm   2 tokens and more, if rows come in fours and their length is a multiple of `whole`
    whole   numbers of a step of sgemm
    """

    alone: str
    sgemm: str
    whole: int


ORDERS: Mapping[str, Callable[[F32, F32], F32]] = {
    **{dot.__name__: partial(dot, lanes=8) for dot in (dot_f32, dot_f16, dot_bf16, dot_sgemm)},
    **{f"{dot.__name__}_16": partial(dot, lanes=16) for dot in (dot_f32, dot_f16, dot_bf16, dot_sgemm)},
    "dot_amx": dot_amx,
    "dot_bf16_pairs": dot_bf16_pairs,
    "dot_sgemm_pairs": dot_sgemm_pairs,
}
FLOATS = Q.F32, Q.F16, Q.BF16
FLOAT_PATHS: Mapping[tuple[Q, str], Orders] = {  # by type, and Instructions.floats
    **{(kind, "avx2"): Orders(f"dot_{kind.name.lower()}", "dot_sgemm", 8) for kind in FLOATS},
    **{(kind, "avx512"): Orders(f"dot_{kind.name.lower()}_16", "dot_sgemm_16", 16) for kind in FLOATS},
    **{(kind, "avx512bf16"): Orders(f"dot_{kind.name.lower()}_16", "dot_sgemm_16", 16) for kind in FLOATS},
    (Q.BF16, "avx512bf16"): Orders("dot_bf16_pairs", "dot_sgemm_pairs", 32),
}
