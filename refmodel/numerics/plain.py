"""The record of functions that a forward pass computes with, and its two plain values: float32 and float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..arrays import Bytes, DType, F, Ints, Matrices, Matrix
from ..kernels import attention, deltanet
from ..kernels import linear as kernels
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
    softplus: Callable[[F], F]
    soft_max: Callable[[F], F]
    rope: Callable[[F, Ints, Rope], F]
    store: Callable[[F], F]
    scores: bool
    attention: Callable[[F, F, F, float, F, F], F]
    causal_conv1d: Callable[[F, F], F]
    gated_delta_rule: Callable[[F, F, F, F, F, F], tuple[F, F]]


def embed(w: Matrix, tokens: Ints, dtype: DType) -> F:
    """The rows of the embedding [V, E] that the tokens [T] name, decoded: [T, E]."""
    return dequantize(w.type, w.rows[tokens]).astype(dtype)


def panels(w: Matrix) -> Iterator[tuple[int, Bytes]]:
    """The rows of a matrix, piece by piece, each with the number of its first row."""
    step = max(1, kernels.PANEL // w.shape[1])
    return ((start, w.rows[start : start + step]) for start in range(0, w.shape[0], step))


def linear(w: Matrix, x: F) -> F:
    """ops.linear with kernels: panels of rows are decoded and multiplied. An element's bits depend on its row and token alone."""
    O, I = w.shape
    x, out = np.ascontiguousarray(x), np.empty((len(x), O), x.dtype)
    decode = kernels.DECODERS.get(w.type.name)
    panel = np.empty((min(max(1, kernels.PANEL // I), O), I), np.float32)
    for start, rows in panels(w):
        if decode:
            decode(rows, panel[: len(rows)])
        else:
            panel[: len(rows)] = dequantize(w.type, rows)
        kernels.product(panel[: len(rows)], x, out[:, start : start + len(rows)])
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
    rms_norm=norm.rms_norm,
    sigmoid=activation.sigmoid,
    silu=activation.silu,
    swiglu=activation.swiglu,
    softplus=activation.softplus,
    soft_max=activation.soft_max,
    rope=rope,
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
    attention=plain_attention,
    causal_conv1d=causal_conv1d,
    gated_delta_rule=gated_delta_rule,
)
