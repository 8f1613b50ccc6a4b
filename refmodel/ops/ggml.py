"""ggml's own float arithmetic on x86-64: the order of every sum and the place of every rounding.

Everything is float32. `lanes` are the floats of a register: 8 of AVX2, 16 of AVX-512. These definitions are written to be read;
the kernels of the same names are the ones that run.
Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu: vec.cpp, vec.h, ops.cpp, llamafile/sgemm.cpp.
"""

import ctypes
from functools import cache

import numpy as np

from ..arrays import F32, F, Ints
from .ggml_floats import added_as_compiled, dot_f32, hsum
from .ieee import c_library, f32, fma, half, libm
from .rope import Rope

# ---- functions of one number


def exp8(x: F32) -> F32:
    """ggml's vectorised e^x in registers of 8, a polynomial whose error is at most 1.95 units in the last place. Any shape.

    Source: ggml_v_expf.
    """
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


def exp16(x: F32) -> F32:
    """exp8 for registers of 16: 1 is added inside the polynomial, and the power of two multiplies it at the end.

    Source: ggml_v_expf.
    """
    c = float.fromhex
    with np.errstate(all="ignore"):
        n = fma(x, f32(c("0x1.715476p+0")), f32(c("0x1.8p23"))) - f32(c("0x1.8p23"))
        b = fma(-n, f32(c("0x1.7f7d1cp-20")), fma(-n, f32(c("0x1.62e4p-1")), x))
        u, far = b * b, np.abs(n) > 192
        low, high = (
            fma(f32(c("0x1.0e4020p-7")), b, f32(c("0x1.573e2ep-5"))),
            fma(f32(c("0x1.555e66p-3")), b, f32(c("0x1.fffdb6p-2"))),
        )
        j = fma(fma(low, u, high), u, fma(f32(c("0x1.ffffecp-1")), b, f32(1)))
        power = np.where(far | np.isnan(n), f32(0), n).astype(np.int32)
        return np.where(far, np.where(n <= 0, f32(0), f32(np.inf)), np.ldexp(j, power))


EXP = {8: exp8, 16: exp16}


def exp_rows(x: F32, lanes: int) -> F32:
    """e^x of rows [..., n]: EXP for whole registers of `lanes`, the C library's expf for the rest."""
    whole = x.shape[-1] // lanes * lanes
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([EXP[lanes](x[..., :whole]), libm("expf")(x[..., whole:])], axis=-1)


def silu(x: F32, lanes: int) -> F32:
    """x / (1 + e^-x) of rows [..., n]. Source: ggml_vec_silu_f32."""
    return x / (1 + exp_rows(-x, lanes))


def swiglu(gate: F32, up: F32, lanes: int) -> F32:
    """silu(gate) · up of rows [..., n]. Source: ggml_vec_swiglu_f32."""
    return silu(gate, lanes) * up


def sigmoid(x: F32) -> F32:
    """1 / (1 + e^-x) of any shape, by the C library's expf. Source: op_sigmoid in unary-ops.cpp."""
    return f32(1) / (f32(1) + libm("expf")(-x))


def softplus(x: F32) -> F32:
    """log(1 + e^x), and x above 20; any shape, by the C library's functions. Source: op_softplus in unary-ops.cpp."""
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
    """gelu(gate) · up, any shape. gelu is looked up between −10 and 10; outside it is 0 or the gate. Source: ggml_vec_geglu_f32."""
    with np.errstate(over="ignore"):
        looked_up = gelu_table()[gate.astype(np.float16).view(np.uint16)]
    return np.where(gate <= -10, f32(0), np.where(gate >= 10, gate, looked_up) * up)


def softcap(x: F32, cap: float) -> F32:
    """cap · tanh(x · (1 / cap)), any shape. Source: the last nodes of gemma3's graph, GGML_UNARY_OP_TANH."""
    return libm("tanhf")(x * (f32(1) / f32(cap))) * f32(cap)


# ---- operations on rows


def soft_max(x: F32, lanes: int) -> F32:
    """e^(x − max) / Σ of rows [..., n]: registers are summed in float32 as hsum does, and then, with the rest of a row, in float64.

    Source: ggml_vec_soft_max_f32, ggml_compute_forward_soft_max_f32.
    """
    weights = exp_rows(x - x.max(axis=-1, keepdims=True), lanes)
    total = sum_of(weights, lanes)
    for i in range(x.shape[-1] // lanes * lanes, x.shape[-1]):
        total += weights[..., i].astype(np.float64)
    return weights * (1 / total).astype(f32)[..., None]


def sum_of(p: F32, lanes: int) -> F:
    """The sums [...] of the whole registers of rows [..., n], float64: each register in float32, then these in order."""
    total = np.zeros(p.shape[:-1])
    for i in range(0, p.shape[-1] // lanes * lanes, lanes):
        total += hsum(p[..., i : i + lanes]).astype(np.float64)
    return total


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


def rope(x: F32, pos: Ints, how: Rope, at_once: int) -> F32:
    """Rotate heads x [T, H, D] at positions pos [T]; the angle of a pair is the last one's times a factor, so rounding accumulates.

    at_once  pairs that the compiler computes together where pairs are neighbours; it rounds both products of those left over,
             and fuses the first product of each other sum

    Returns [T, H, D]. Source: ggml_rope_cache_init, rope_yarn, rotate_pairs.
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
        left_over = i >= half_n // at_once * at_once
        out[:, :, first[i]] = a * c - b * s if left_over else fma(a, c, -(b * s))
        out[:, :, second[i]] = a * s + b * c if left_over else fma(a, s, b * c)
        theta = theta * step
    return out


@cache
def rope_step(how: Rope) -> np.float32:
    """base^(-2 / n_rot) by the C library's powf, float32: the factor from one pair's angle to the next.

    Source: ggml_rope_cache_init.
    """
    power = c_library().powf
    power.restype, power.argtypes = ctypes.c_float, [ctypes.c_float, ctypes.c_float]
    return f32(power(how.base, float(f32(-2) / f32(how.n_rot))))


def causal_conv1d(x: F32, w: F32, lanes: int) -> F32:
    """ops.deltanet.causal_conv1d, in the compiler's order for `lanes`. [T, C]. Source: ggml_compute_forward_ssm_conv_f32."""
    T = len(x) - w.shape[1] + 1
    windows = np.stack([x[j : j + T] for j in range(w.shape[1])], axis=-1)  # [T, C, K]
    return added_as_compiled(windows, w, np.zeros(windows.shape[:-1], f32), lanes)


def gated_delta_rule(q: F32, k: F32, v: F32, log_decay: F32, beta: F32, before: F32, after: F32, lanes: int) -> F32:
    """ops.deltanet.gated_delta_rule in ggml's order; the same shapes. Source: ggml_compute_forward_gated_delta_net_one_chunk."""
    S, out, repeat = before, np.empty_like(v), len(before) // k.shape[1]
    q, k = np.tile(q, (1, repeat, 1)), np.tile(k, (1, repeat, 1))  # [T, Hv, Dk]
    for t in range(len(v)):
        S = S * libm("expf")(log_decay[t])[:, None, None]
        delta = beta[t][:, None] * (v[t] - dot_f32(S, k[t][:, None, :], lanes))
        S = fma(k[t][:, None, :], delta[:, :, None], S)
        out[t] = dot_f32(S, q[t][:, None, :], lanes)
    after[:] = S
    return out
