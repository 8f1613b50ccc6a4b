"""The record of functions that a forward pass computes with, and its two plain values: float32 and float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ..arrays import F32, Bytes, DType, F, Ints, Matrices, Matrix
from ..kernels import activation as activation_kernels
from ..kernels import attention, deltanet
from ..kernels import norm as norm_kernels
from ..kernels.decode import KINDS, LARGE
from ..kernels.decode import dequantize as decode
from ..kernels.linear import product
from ..kernels.rope import rope as rope_kernel
from ..ops import activation, norm
from ..ops.attention import attention as plain_attention
from ..ops.deltanet import causal_conv1d, gated_delta_rule
from ..ops.rope import Rope, rope
from ..quants import dequantize


@dataclass(frozen=True)
class Numerics:
    """One way to do the arithmetic of a model. Everything but + and * is a field; the op of the same name says what it means.

    dtype   of activations and states
    store   what the key/value cache does to a number before it is read again
    experts the products x [T, U or 1, I] of each token with the matrices ids [T, U] of [X, O, I], [T, U, O]
    scores  whether attention makes its scores and weights as matrices; flash attention does not
    """

    name: str
    dtype: DType
    embed: Callable[[Matrix, Ints, DType], F]
    linear: Callable[[Matrix, F], F]
    experts: Callable[[Matrices, F, Ints], F]
    inverse_root: Callable[[int], float]
    rms_norm: Callable[[F, float], F]
    sigmoid: Callable[[F], F]
    silu: Callable[[F], F]
    swiglu: Callable[[F, F], F]
    geglu: Callable[[F, F], F]
    softcap: Callable[[F, float], F]
    softplus: Callable[[F], F]
    soft_max: Callable[[F], F]
    rope: Callable[[F, Ints, Rope], F]
    store: Callable[[F], F]
    scores: bool
    attention: Callable[[F, F, F, float, F, F, int], F]
    causal_conv1d: Callable[[F, F], F]
    gated_delta_rule: Callable[[F, F, F, F, F, F, F], F]

    @property
    def cache(self) -> np.dtype[Any]:
        """What keys and values are kept as."""
        return self.store(np.zeros(0, self.dtype)).dtype


def embed(w: Matrix, tokens: Ints, dtype: DType) -> F:
    """The rows of the embedding [V, E] that the tokens [T] name, decoded: [T, E]."""
    return dequantize(w.type, w.rows[tokens]).astype(dtype)


def decoded(kind: GGMLQuantizationType, rows: Bytes) -> F32:
    """quants.dequantize, with kernels where a tensor is large: then its address is a multiple of 32, so that it may be streamed."""
    weights, size = GGML_QUANT_SIZES[kind]
    shape = len(rows), rows.shape[1] // size * weights
    if kind.name not in KINDS or 4 * shape[0] * shape[1] < LARGE:
        return dequantize(kind, rows)
    space = np.empty(shape[0] * shape[1] + 8, np.float32)
    out = space[-space.ctypes.data % 32 // 4 :][: shape[0] * shape[1]].reshape(shape)
    decode(kind.name, rows, out)
    return out


PANEL = 1 << 18  # weights decoded at once where no kernel multiplies what is packed: 1 MB of float32


def panels(w: Matrix) -> Iterator[tuple[int, Bytes]]:
    """The rows of a matrix, piece by piece, each with the number of its first row."""
    step = max(1, PANEL // w.shape[1])
    return ((start, w.rows[start : start + step]) for start in range(0, w.shape[0], step))


def linear(w: Matrix, x: F) -> F:
    """ops.linear with kernels, in the order of eight_lanes. An element's bits depend on its row and token alone."""
    x = np.ascontiguousarray(x)
    out = np.empty((len(x), w.shape[0]), x.dtype)
    if w.type.name in KINDS:
        product(w.type.name, "dot_sgemm", w.rows, x, out)
        return out
    for start, rows in panels(w):
        part = np.empty((len(x), len(rows)), x.dtype)
        product("F32", "dot_sgemm", dequantize(w.type, rows).view(np.uint8), x, part)
        out[:, start : start + len(rows)] = part
    return out


def by_expert(product: Callable[[Matrix, F], F], w: Matrices, x: F, ids: Ints) -> F:
    """The product of each token with the experts that it is routed to; only their matrices are read. See Numerics.experts."""
    out = np.empty((*ids.shape, w.shape[1]), x.dtype)
    for expert in np.unique(ids):
        t, u = np.nonzero(ids == expert)
        out[t, u] = product(w.matrix(int(expert)), x[t, u % x.shape[1]])
    return out


def as_it_is(x: F) -> F:
    return x


def inverse_root(n: int) -> float:
    """n^-0.5."""
    return float(n**-0.5)


REFERENCE = Numerics(
    name="reference",
    dtype=np.float32,
    embed=embed,
    linear=linear,
    experts=partial(by_expert, linear),
    inverse_root=inverse_root,
    rms_norm=norm_kernels.rms_norm,
    sigmoid=activation_kernels.sigmoid,
    silu=activation_kernels.silu,
    swiglu=activation_kernels.swiglu,
    geglu=activation.geglu,
    softcap=activation.softcap,
    softplus=activation_kernels.softplus,
    soft_max=activation.soft_max,
    rope=rope_kernel,
    store=as_it_is,
    scores=True,
    attention=attention.attention,
    causal_conv1d=deltanet.causal_conv1d,
    gated_delta_rule=deltanet.gated_delta_rule,
)

ORACLE = replace(
    REFERENCE,
    name="oracle",
    dtype=np.float64,
    rms_norm=norm.rms_norm,
    sigmoid=activation.sigmoid,
    silu=activation.silu,
    swiglu=activation.swiglu,
    softplus=activation.softplus,
    rope=rope,
    attention=plain_attention,
    causal_conv1d=causal_conv1d,
    gated_delta_rule=gated_delta_rule,
)
