"""ggml's own float arithmetic on x86-64 with AVX2, FMA and F16C: the order of every sum and the place of every rounding.

Everything is float32. These definitions are written to be read; the kernels of the same names are the ones that run.
Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu: vec.cpp, vec.h, ops.cpp, llamafile/sgemm.cpp.
"""

import ctypes
import ctypes.util
from functools import cache

import numpy as np

from ..arrays import F32, Ints
from .rope import Rope

f32 = np.float32
Number = F32 | np.float32


def fma(a: Number, b: Number, c: Number) -> F32:
    """a · b + c, rounded once.

    The product is exact in float64. Its sum with c is rounded to odd there, which keeps the second rounding from seeing a tie
    that is none (Boldo and Melquiond, 2008).
    """
    product, c64 = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + c64)
    part = total - product
    lost = (product - (total - part)) + (c64 - part)
    even = total.view(np.int64) & 1 == 0
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even & np.isfinite(total), odd, total).astype(f32)


def half(x: F32) -> F32:
    """x rounded to the nearest half float."""
    return x.astype(np.float16).astype(f32)


def bfloat(x: F32) -> F32:
    """x rounded to the nearest bfloat16, ties to even. Source: ggml_compute_fp32_to_bf16."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) & 0xFFFF0000).astype(np.uint32).view(f32)


@cache
def c_library() -> ctypes.CDLL:
    """The process's mathematical library; finding it takes milliseconds, so it is found once."""
    return ctypes.CDLL(ctypes.util.find_library("m"))


@cache
def libm(name: str) -> np.vectorize:
    """A float32 function of the C library, which llama.cpp calls and NumPy does not: theirs differ in the last place."""
    function = getattr(c_library(), name)
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.vectorize(function, otypes=[f32])


def hsum(lanes: F32) -> F32:
    """The sum of 8 lanes [..., 8] -> [...]: the upper half is added to the lower until one lane is left."""
    four = lanes[..., 4:] + lanes[..., :4]
    two = four[..., 2:] + four[..., :2]
    return two[..., 1] + two[..., 0]


# ---- products of floats. A float is cut from the front of x and y [..., n] -> [...]; what is in a tail is added one by one.


def lanes_of(x: F32, y: F32, width: int) -> F32:
    """`width` accumulators over the whole steps of x and y: lane l sums the products of elements l, l + width, ... by fma."""
    acc = np.zeros((*np.broadcast_shapes(x.shape, y.shape)[:-1], width), f32)
    for start in range(0, x.shape[-1] // width * width, width):
        acc = fma(x[..., start : start + width], y[..., start : start + width], acc)
    return acc


def four_registers(x: F32, y: F32) -> F32:
    """The main part of ggml's vec_dot functions: four registers of 8 lanes, (0 + 2) + (1 + 3), as one register [..., 8]."""
    acc = lanes_of(x, y, 32)
    return (acc[..., :8] + acc[..., 16:24]) + (acc[..., 8:16] + acc[..., 24:])


def pairwise(lanes: F32) -> F32:
    """The sum of 8 lanes [..., 8] -> [...]: halves as in hsum, then neighbours. Source: GGML_F32x8_REDUCE."""
    four = lanes[..., :4] + lanes[..., 4:]
    return (four[..., 0] + four[..., 1]) + (four[..., 2] + four[..., 3])


def dot_f32(x: F32, y: F32) -> F32:
    """ggml_vec_dot_f32."""
    start = x.shape[-1] // 32 * 32
    return added_as_compiled(x[..., start:], y[..., start:], pairwise(four_registers(x, y)))


def added_as_compiled(x: F32, y: F32, total: F32) -> F32:
    """total + Σ x · y in order: what the compiler makes of a plain loop. Whole fours have two roundings, the last three one."""
    n = x.shape[-1]
    for i in range(n):
        total = total + x[..., i] * y[..., i] if i < n // 4 * 4 else fma(x[..., i], y[..., i], total)
    return total


def dot_f16(x: F32, y: F32) -> F32:
    """ggml_vec_dot_f16 of half floats."""
    return added_in_double(x, y, pairwise(four_registers(x, y)))


def dot_bf16(x: F32, y: F32) -> F32:
    """ggml_vec_dot_bf16 of bfloats."""
    return added_in_double(x, y, hsum(four_registers(x, y)))


def added_in_double(x: F32, y: F32, main: F32) -> F32:
    """main + the tail of a vec_dot: products are rounded to float32 and added in float64."""
    total, n = main.astype(np.float64), x.shape[-1]
    for i in range(n // 32 * 32, n):
        total = total + (x[..., i] * y[..., i]).astype(np.float64)
    return total.astype(f32)


def dot_sgemm(x: F32, y: F32) -> F32:
    """llamafile_sgemm: one register of 8 lanes; the length is a multiple of 8."""
    return hsum(lanes_of(x, y, 8))


# ---- functions of one number


def exp8(x: F32) -> F32:
    """ggml's vectorised e^x, a polynomial with at most 1.95 units in the last place of error. Source: ggml_v_expf."""
    c = float.fromhex
    with np.errstate(all="ignore"):
        z = fma(x, f32(c("0x1.715476p+0")), f32(c("0x1.8p23")))
        n = z - f32(c("0x1.8p23"))  # the nearest whole number to x / ln 2
        b = fma(-n, f32(c("0x1.7f7d1cp-20")), fma(-n, f32(c("0x1.62e4p-1")), x))
        e = z.view(np.uint32) << 23
        u = b * b
        low, high = (
            fma(f32(c("0x1.0e4020p-7")), b, f32(c("0x1.573e2ep-5"))),
            fma(f32(c("0x1.555e66p-3")), b, f32(c("0x1.fffdb6p-2"))),
        )
        j = fma(fma(low, u, high), u, f32(c("0x1.ffffecp-1")) * b)
        k = (e + np.uint32(0x3F800000)).view(f32)
        g = np.where(n <= 0, np.uint32(0x82000000), np.uint32(0))
        s1, s2 = (g + np.uint32(0x7F000000)).view(f32), (e - g).view(f32)
        far = np.where(np.abs(n) > 192, s1 * s1, fma(s2, j, s2) * s1)
        return np.where(np.abs(n) > 126, far, fma(j, k, k))


def exp_rows(x: F32) -> F32:
    """e^x of rows [..., n]: exp8 for whole groups of 8, the C library for the rest."""
    whole = x.shape[-1] // 8 * 8
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([exp8(x[..., :whole]), libm("expf")(x[..., whole:])], axis=-1)


def silu(x: F32) -> F32:
    """x / (1 + e^-x) of rows [..., n]. Source: ggml_vec_silu_f32."""
    return x / (1 + exp_rows(-x))


def swiglu(gate: F32, up: F32) -> F32:
    """silu(gate) · up. Source: ggml_vec_swiglu_f32."""
    return silu(gate) * up


def sigmoid(x: F32) -> F32:
    """1 / (1 + e^-x). Source: op_sigmoid in unary-ops.cpp."""
    return f32(1) / (f32(1) + libm("expf")(-x))


def softplus(x: F32) -> F32:
    """log(1 + e^x), and x above 20. Source: op_softplus in unary-ops.cpp."""
    return np.where(x > 20, x, libm("logf")(f32(1) + libm("expf")(np.minimum(x, f32(20)))))


@cache
def gelu_table() -> F32:
    """gelu(x) = x/2 · (1 + tanh(√(2/π) · x · (1 + 0.044715 x²))) of every half float x by its bits, rounded to half: [65536].

    Source: ggml_cpu_init, ggml_gelu_f32.
    """
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(f32)
    with np.errstate(over="ignore", invalid="ignore"):
        inner = fma(f32(0.044715) * x, x, f32(1))
        return half(f32(0.5) * x * (f32(1) + libm("tanhf")(f32(0.7978845608028654) * x * inner)))


def geglu(gate: F32, up: F32) -> F32:
    """gelu(gate) · up, where gelu is looked up between −10 and 10, and 0 or the gate itself beyond. Source: ggml_vec_geglu_f32."""
    with np.errstate(over="ignore"):
        looked_up = gelu_table()[gate.astype(np.float16).view(np.uint16)]
    return np.where(gate <= -10, f32(0), np.where(gate >= 10, gate, looked_up) * up)


def softcap(x: F32, cap: float) -> F32:
    """cap · tanh(x · (1 / cap)). Source: the last nodes of gemma3's graph, GGML_UNARY_OP_TANH."""
    return libm("tanhf")(x * (f32(1) / f32(cap))) * f32(cap)


# ---- operations on rows


def soft_max(x: F32) -> F32:
    """e^(x − max) / Σ of rows [..., n]: eights are summed in float32 as hsum does, and then, with the rest of a row, in float64.

    Source: ggml_vec_soft_max_f32, ggml_compute_forward_soft_max_f32.
    """
    weights, whole = exp_rows(x - x.max(axis=-1, keepdims=True)), x.shape[-1] // 8 * 8
    total = np.zeros(x.shape[:-1])
    for i in range(0, whole, 8):
        total += hsum(weights[..., i : i + 8]).astype(np.float64)
    for i in range(whole, x.shape[-1]):
        total += weights[..., i].astype(np.float64)
    return weights * (1 / total).astype(f32)[..., None]


def inverse_root(n: int) -> float:
    """1 / sqrt(n), both steps rounded to float32, as llama.cpp computes the scale of attention and of unit norms."""
    return float(f32(1) / np.sqrt(f32(n)))


def rms_norm(x: F32, eps: float) -> F32:
    """x / sqrt(mean(x²) + eps) of rows [..., n]: squares in float32, summed one by one in float64.

    Source: ggml_compute_forward_rms_norm_f32.
    """
    total = np.zeros(x.shape[:-1])
    for i in range(x.shape[-1]):
        total += (x[..., i] * x[..., i]).astype(np.float64)
    mean = (total / x.shape[-1]).astype(f32)
    return x * (f32(1) / np.sqrt(mean + f32(eps)))[..., None]


def rope(x: F32, pos: Ints, how: Rope, plain_last: bool) -> F32:
    """Rotate heads x [T, H, D]; the angle of the next pair is the last one's times a factor, so its rounding accumulates.

    Source: ggml_rope_cache_init, rope_yarn, rotate_pairs. The compiler fuses the first product of each sum; where pairs are
    neighbours it takes them two by two, and with `plain_last` rounds both products of a last one that has no second.
    """
    half_n, out = how.n_rot // 2, x.copy()
    first = np.arange(half_n) * (2 if how.adjacent else 1)
    second = first + (1 if how.adjacent else half_n)
    step, theta = rope_step(how), pos.astype(f32)
    for i in range(half_n):
        factor = f32(how.factors[i])
        angle = f32(how.scale) * (theta / factor)
        if how.unscaled:
            kept = f32(how.unscaled[i])
            angle = fma(angle, f32(1) - kept, (theta / factor) * kept)
        c, s = (libm(f)(angle)[:, None] * f32(how.magnitude) for f in ("cosf", "sinf"))  # [T, 1]
        a, b = x[:, :, first[i]], x[:, :, second[i]]
        left_over = plain_last and i == half_n - 1 and half_n % 2 == 1
        out[:, :, first[i]] = a * c - b * s if left_over else fma(a, c, -(b * s))
        out[:, :, second[i]] = a * s + b * c if left_over else fma(a, s, b * c)
        theta = theta * step
    return out


@cache
def rope_step(how: Rope) -> np.float32:
    """base^(-2 / n_rot) by the C library's powf."""
    power = c_library().powf
    power.restype, power.argtypes = ctypes.c_float, [ctypes.c_float, ctypes.c_float]
    return f32(power(how.base, float(f32(-2) / f32(how.n_rot))))


def causal_conv1d(x: F32, w: F32) -> F32:
    """ops.deltanet.causal_conv1d. Source: ggml_compute_forward_ssm_conv_f32."""
    T = len(x) - w.shape[1] + 1
    windows = np.stack([x[j : j + T] for j in range(w.shape[1])], axis=-1)  # [T, C, K]
    return added_as_compiled(windows, w, np.zeros(windows.shape[:-1], f32))


def gated_delta_rule(q: F32, k: F32, v: F32, log_decay: F32, beta: F32, before: F32, after: F32) -> F32:
    """ops.deltanet.gated_delta_rule in ggml's order. Source: ggml_compute_forward_gated_delta_net_one_chunk."""
    S, out, repeat = before, np.empty_like(v), len(before) // k.shape[1]
    q, k = np.tile(q, (1, repeat, 1)), np.tile(k, (1, repeat, 1))  # [T, Hv, Dk]
    for t in range(len(v)):
        S = S * libm("expf")(log_decay[t])[:, None, None]
        delta = beta[t][:, None] * (v[t] - dot_f32(S, k[t][:, None, :]))
        S = fma(k[t][:, None, :], delta[:, :, None], S)
        out[t] = dot_f32(S, q[t][:, None, :])
    after[:] = S
    return out
