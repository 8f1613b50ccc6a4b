"""Numerics `reference`: float32 by kernels, each within a few units in the last place of its op in refmodel/ops."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import F32, Bytes, F, Matrix
from ..kernels import activation, attention, deltanet, norm
from ..kernels.floats.dequantize import KINDS, LARGE
from ..kernels.floats.dequantize import dequantize as decode
from ..kernels.floats.product import product
from ..kernels.rope import rope
from ..kernels.types import grids
from ..kernels.types.grids import BLOCKS
from ..ops.experts import by_expert
from ..quants import dequantize
from ..quants.grids import tables
from ..quants.types import SIZES
from .numpy import NUMPY


def decoded(kind: GGMLQuantizationType, rows: Bytes) -> F32:
    """quants.dequantize, [O, bytes of a row] -> [O, I], with kernels where a tensor is large.

    The result of those begins at a multiple of 32 bytes, so that it may be streamed. TensorError for a type without weights.
    """
    weights, size = SIZES[kind]
    shape = len(rows), rows.shape[1] // size * weights
    if kind.name in BLOCKS:
        out = np.empty(shape, np.float32)
        grids.dequantize(kind.name, rows, *tables(kind.name), out)
        return out
    if kind.name not in KINDS or 4 * shape[0] * shape[1] < LARGE:
        return dequantize(kind, rows)
    space = np.empty(shape[0] * shape[1] + 8, np.float32)
    out = space[-space.ctypes.data % 32 // 4 :][: shape[0] * shape[1]].reshape(shape)
    decode(kind.name, rows, out)
    return out


PANEL = 1 << 20  # weights decoded at once where no kernel multiplies what is packed: 4 MB of float32


def panels(w: Matrix) -> Iterator[tuple[int, Bytes]]:
    """The packed rows of a matrix, piece by piece: (number of the first row, rows [R, bytes of a row])."""
    step, rows = max(1, PANEL // w.shape[1]), w.rows
    return ((start, rows[start : start + step]) for start in range(0, w.shape[0], step))


def linear(w: Matrix, x: F) -> F:
    """ops.linear.linear by kernels, in the order of eight_lanes: w [O, I] and x [T, I] -> [T, O] in the dtype of x.

    An element's bits depend on its row and token only. TensorError for a type without weights.
    """
    x = np.ascontiguousarray(x)
    out = np.empty((len(x), w.shape[0]), x.dtype)
    if w.type.name in KINDS:
        product(w.type.name, "dot_sgemm", w.rows, x, out)
        return out
    for start, rows in panels(w):
        part = np.empty((len(x), len(rows)), x.dtype)
        product("F32", "dot_sgemm", decoded(w.type, rows).view(np.uint8), x, part)
        out[:, start : start + len(rows)] = part
    return out


REFERENCE = replace(
    NUMPY,
    name="reference",
    linear=linear,
    experts=partial(by_expert, linear),
    rms_norm=norm.rms_norm,
    sigmoid=activation.sigmoid,
    silu=activation.silu,
    swiglu=activation.swiglu,
    softplus=activation.softplus,
    rope=rope,
    attention=attention.attention,
    causal_conv1d=deltanet.causal_conv1d,
    gated_delta_rule=deltanet.gated_delta_rule,
)
