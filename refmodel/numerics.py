"""How a forward pass computes: a record of functions, and its values. No other place knows which policy runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .arrays import DType, F, Ints, Matrix
from .errors import RefmodelError
from .kernels import attention, deltanet
from .kernels import linear as kernels
from .ops import activation, norm
from .ops.attention import attention as plain_attention
from .ops.deltanet import causal_conv1d, gated_delta_rule
from .ops.rope import Rope, rope
from .quants import dequantize


@dataclass(frozen=True)
class Numerics:
    """One way to do the arithmetic of a model. Everything but + and * is a field; the op of the same name says what it means.

    dtype  of activations and states
    store  what the key/value cache does to a number before it is read again
    """

    name: str
    dtype: DType
    embed: Callable[[Matrix, Ints, DType], F]
    linear: Callable[[Matrix, F], F]
    rms_norm: Callable[[F, float], F]
    sigmoid: Callable[[F], F]
    silu: Callable[[F], F]
    swiglu: Callable[[F, F], F]
    softplus: Callable[[F], F]
    rope: Callable[[F, Ints, Rope], F]
    store: Callable[[F], F]
    attention: Callable[[F, F, F, float, F, F], F]
    causal_conv1d: Callable[[F, F], F]
    gated_delta_rule: Callable[[F, F, F, F, F, F], tuple[F, F]]


def embed(w: Matrix, tokens: Ints, dtype: DType) -> F:
    """The rows of the embedding [V, E] that the tokens [T] name, decoded: [T, E]."""
    return dequantize(w.type, w.rows[tokens]).astype(dtype)


def linear(w: Matrix, x: F) -> F:
    """ops.linear with kernels: panels of rows are decoded and multiplied. An element's bits depend on its row and token alone."""
    O, I = w.shape
    x, out, step = np.ascontiguousarray(x), np.empty((len(x), O), x.dtype), max(1, kernels.PANEL // I)
    decode = kernels.DECODERS.get(w.type.name)
    panel = np.empty((min(step, O), I), np.float32)
    for start in range(0, O, step):
        rows = w.rows[start : start + step]
        if decode:
            decode(rows, panel[: len(rows)])
        else:
            panel[: len(rows)] = dequantize(w.type, rows)
        kernels.product(panel[: len(rows)], x, out[:, start : start + step])
    return out


def as_it_is(x: F) -> F:
    return x


REFERENCE = Numerics(
    name="reference",
    dtype=np.float32,
    embed=embed,
    linear=linear,
    rms_norm=norm.rms_norm,
    sigmoid=activation.sigmoid,
    silu=activation.silu,
    swiglu=activation.swiglu,
    softplus=activation.softplus,
    rope=rope,
    store=as_it_is,
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

NUMERICS = {value.name: value for value in (REFERENCE, ORACLE)}


def numerics_of(value: Numerics | str) -> Numerics:
    """The policy of that name, or the policy itself."""
    if isinstance(value, Numerics):
        return value
    if value not in NUMERICS:
        raise RefmodelError(f"--numerics {value}: not one of {', '.join(NUMERICS)}")
    return NUMERICS[value]
