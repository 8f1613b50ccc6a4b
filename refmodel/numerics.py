"""How a forward pass computes: a record of functions, and its values. No other place knows which policy runs."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial

import numpy as np
from gguf import GGMLQuantizationType

from .arrays import F32, Bytes, DType, F, Ints, Matrix
from .errors import RefmodelError, TensorError
from .kernels import attention, deltanet, ggml, ggml_attention, ggml_product
from .kernels import linear as kernels
from .ops import activation, norm
from .ops import ggml as ggml_ops
from .ops.attention import attention as plain_attention
from .ops.deltanet import causal_conv1d, gated_delta_rule
from .ops.ggml_product import PATHS, QUANTIZERS, plan
from .ops.rope import Rope, rope
from .quants import FLOATS, dequantize, integers


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
    inverse_root: Callable[[int], float]
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
    inverse_root=inverse_root,
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


@dataclass(frozen=True)
class Cpu:
    """How llama.cpp computes: its options, as they stand in `llamacpp:fa=off,kv=f32`. The values here are its defaults.

    fa       flash attention: on, off
    kv       type of the cached keys and values: f16, f32
    repack   quantized weights rearranged at loading: on, off
    tiled    its tiled products: on, off (GGML_CPU_TILED_MM=0)
    threads  matters in flash attention of one token over 512 and more cells
    """

    fa: str = "on"
    kv: str = "f16"
    repack: str = "on"
    tiled: str = "on"
    threads: int = 1

    @property
    def name(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return "llamacpp" + ":" * bool(given) + ",".join(given)


OPTIONS = {"fa": ("on", "off"), "kv": ("f16", "f32"), "repack": ("on", "off"), "tiled": ("on", "off")}


def parsed(text: str) -> Cpu:
    """`llamacpp`, or `llamacpp:` and options."""
    cpu = Cpu()
    for option in filter(None, text.partition(":")[2].split(",")):
        name, _, value = option.partition("=")
        if name == "threads" and value.isdecimal() and 0 < int(value) < 1024:
            cpu = replace(cpu, threads=int(value))
        elif value in OPTIONS.get(name, ()):
            cpu = Cpu(**(asdict(cpu) | {name: value}))
        else:
            known = ", ".join(f"{name}={'|'.join(values)}" for name, values in OPTIONS.items())
            raise RefmodelError(f"--numerics {text}: {option!r} is no option of llamacpp; known are {known}, threads=N")
    return cpu


def ggml_linear(cpu: Cpu, w: Matrix, x: F32) -> F32:
    """llama.cpp's product, by the path that it takes for this type and these sizes. TensorError for a type without a known path."""
    (O, I), x, out = w.shape, np.ascontiguousarray(x), np.empty((len(x), w.shape[0]), np.float32)
    if w.type in FLOATS:
        rounded, vec_dot = FLOAT_PRODUCTS[w.type]
        x, multiply = rounded(x), ggml.by_sgemm if len(x) > 1 and I % 8 == 0 and O % 4 == 0 else vec_dot
        for start, rows in panels(w):
            product = np.empty((len(x), len(rows)), np.float32)
            multiply(dequantize(w.type, rows), x, product)
            out[:, start : start + len(rows)] = product
        return out
    if w.type not in PATHS:
        known = ", ".join(kind.name for kind in (*FLOATS, *PATHS))
        raise TensorError(f"{w.name}: how llama.cpp multiplies {w.type.name} is not known here; numerics llamacpp has {known}")
    steps = plan(w.type, O, len(x), cpu.repack == "on", cpu.tiled == "on")
    tokens = [QUANTIZERS[step.partner](x[step.tokens]) for step in steps]
    for start, rows in panels(w):
        p = integers(w.type, rows)
        dmin, minima = (p.dmin, p.minima) if p.dmin.size else (p.d[:0], p.scales[:0])  # kernels want as many axes
        for step, a in zip(steps, tokens, strict=True):
            product = np.empty((len(a.d), len(rows)), np.float32)
            multiply = getattr(ggml_product, step.path)
            multiply(p.d, p.codes, p.scales, dmin, minima, a.d, a.codes, a.sums, product)
            out[step.tokens, start : start + len(rows)] = product
    return out


FLOAT_PRODUCTS: dict[GGMLQuantizationType, tuple[Callable[[F32], F32], Callable[[F32, F32, F32], None]]] = {
    GGMLQuantizationType.F32: (as_it_is, ggml.by_dot_f32),
    GGMLQuantizationType.F16: (ggml_ops.half, ggml.by_dot_f16),
    GGMLQuantizationType.BF16: (ggml_ops.bfloat, ggml.by_dot_bf16),
}


def ggml_rope(x: F32, pos: Ints, how: Rope) -> F32:
    factors = np.array(how.factors, np.float32)
    return ggml.rope(np.ascontiguousarray(x), pos, ggml_ops.rope_step(how), np.float32(how.scale), factors, how.adjacent)


def by_row(function: Callable[..., F32], *arrays: F32) -> F32:
    """A kernel of rows [R, n] on arrays of any shape [..., n]."""
    flat = [np.ascontiguousarray(x).reshape(-1, x.shape[-1]) for x in arrays]
    return function(*flat).reshape(arrays[0].shape)


def llamacpp(cpu: Cpu) -> Numerics:
    """llama.cpp's own arithmetic, bit for bit: llama.cpp 0c1e57098 built for AVX2, FMA and F16C."""
    how = {"on": partial(with_last, ggml_attention.flash, cpu.threads)}
    how["off"] = partial(with_last, ggml_attention.without_flash, cpu.kv == "f16")
    return replace(
        REFERENCE,
        name=cpu.name,
        linear=partial(ggml_linear, cpu),
        inverse_root=ggml_ops.inverse_root,
        rms_norm=lambda x, eps: by_row(partial(with_last, ggml.rms_norm, np.float32(eps)), x),
        sigmoid=partial(by_row, ggml.sigmoid),
        silu=partial(by_row, ggml.silu),
        swiglu=partial(by_row, ggml.swiglu),
        softplus=partial(by_row, ggml.softplus),
        rope=ggml_rope,
        store=ggml_ops.half if cpu.kv == "f16" else as_it_is,
        attention=how[cpu.fa],
        causal_conv1d=ggml.causal_conv1d,
        gated_delta_rule=ggml.gated_delta_rule,
    )


def with_last(function: Callable[..., F], last: object, *args: object) -> F:
    """The function with its last argument already chosen."""
    return function(*args, last)


NUMERICS = {value.name: value for value in (REFERENCE, ORACLE)}


def numerics_of(value: Numerics | str) -> Numerics:
    """The policy of that name, or the policy itself. RefmodelError if there is none."""
    if isinstance(value, Numerics):
        return value
    if value in NUMERICS:
        return NUMERICS[value]
    if value.partition(":")[0] == "llamacpp":
        return llamacpp(parsed(value))
    raise RefmodelError(f"--numerics {value}: not one of {', '.join(NUMERICS)}, llamacpp")
