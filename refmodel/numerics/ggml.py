"""Numerics `llamacpp`: llama.cpp's own arithmetic on a CPU with AVX2, FMA and F16C, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arrays import F32, F, Ints, Matrix, NDInt
from ..errors import TensorError
from ..kernels import ggml, ggml_attention, ggml_product
from ..kernels.blocks import TYPES
from ..kernels.columns import columns
from ..kernels.matvec import matvec
from ..kernels.panels import panels
from ..ops import ggml as ops
from ..ops.ggml_product import PATHS, QUANTIZERS, Step, plan
from ..ops.rope import Rope
from ..profile import DEFAULT, JUDGE, Build, Profile
from ..quants import FLOATS, dequantize, integers
from ..quants.integers import Activations
from .plain import ORACLE, REFERENCE, Numerics, as_it_is
from .plain import linear as plain_linear
from .plain import panels as panels_of


def llamacpp(profile: Profile, build: Build = JUDGE) -> Numerics:
    """What a llama.cpp of that build computes when it runs with that profile."""
    flash = partial(ggml_attention.flash, threads=profile.threads, fused_sum=build.fused_sum, tiles_any_head=build.tiles_any_head)
    off = partial(ggml_attention.without_flash, half_cache=profile.kv == "f16")
    return replace(
        REFERENCE,
        name=name(profile, build),
        linear=partial(linear, profile, build),
        inverse_root=ops.inverse_root,
        rms_norm=lambda x, eps: by_row(partial(ggml.rms_norm, eps=np.float32(eps)), x),
        sigmoid=partial(by_row, ggml.sigmoid),
        silu=partial(by_row, ggml.silu),
        swiglu=partial(by_row, ggml.swiglu),
        softplus=partial(by_row, ggml.softplus),
        rope=partial(rope, build),
        store=ops.half if profile.kv == "f16" else as_it_is,
        scores=profile.flash_attn == "off",
        attention=off if profile.flash_attn == "off" else flash,
        causal_conv1d=ggml.causal_conv1d,
        gated_delta_rule=ggml.gated_delta_rule,
    )


def ladder(profile: Profile, build: Build) -> dict[str, Numerics]:
    """From exact arithmetic to llama.cpp's, one policy switched at a time; a name says what its step adds.

    activations  inputs of products rounded as llama.cpp rounds them for the type of the matrix
    attention    its cache, and its attention over it
    order        all the rest: float32 instead of float64, and the order of sums
    """
    theirs = llamacpp(profile, build)
    activations = replace(ORACLE, name="oracle, 8-bit activations", linear=linear_of_rounded)
    attention = replace(
        activations,
        name="oracle, 8-bit activations, their attention",
        store=lambda x: theirs.store(x.astype(np.float32)).astype(x.dtype),
        scores=theirs.scores,
        attention=partial(in_float32, theirs.attention),
    )
    return {"activations": activations, "attention": attention, "order": theirs}


def linear_of_rounded(w: Matrix, x: F) -> F:
    """The exact product with activations that are rounded as llama.cpp rounds them for this type."""
    small = x.astype(np.float32)
    if w.type in FLOAT_PRODUCTS:
        return plain_linear(w, FLOAT_PRODUCTS[w.type][0](small).astype(x.dtype) if w.type != Q.F32 else x)
    if w.type not in PATHS:
        return plain_linear(w, x)
    partner = PATHS[w.type].partner
    a = QUANTIZERS[partner](small)
    rounded = a.d[..., None].astype(x.dtype) * a.codes
    out = plain_linear(w, rounded.reshape(x.shape))
    if partner == "q8_1":  # minima multiply sums that are rounded on their own
        lost = a.sums - rounded.sum(axis=-1)
        for start, rows in panels_of(w):
            out[:, start : start + len(rows)] -= lost @ integers(w.type, rows).dmin.T
    return out


def in_float32(attention: Callable[..., F], q: F, k: F, v: F, scale: float, kq: F, kq_soft_max: F) -> F:
    seen = [x.astype(np.float32) for x in (kq, kq_soft_max)]
    out = attention(*(x.astype(np.float32) for x in (q, k, v)), scale, *seen)
    kq[:], kq_soft_max[:] = seen
    return out.astype(q.dtype)


def name(profile: Profile, build: Build) -> str:
    """`llamacpp`, `llamacpp:exact`, `llamacpp of 0ad4a86`."""
    options = "" if profile == DEFAULT else f":{profile.name}"
    return "llamacpp" + options + ("" if build == JUDGE else f" of {build.commit}")


def linear(profile: Profile, build: Build, w: Matrix, x: F32) -> F32:
    """llama.cpp's product, by the path that it takes for this type and these sizes. TensorError for a type without a known path."""
    x = np.ascontiguousarray(x)
    if w.type in FLOATS:
        return of_floats(build, w, x)
    if w.type not in PATHS:
        known = ", ".join(kind.name for kind in (*FLOATS, *PATHS))
        raise TensorError(f"{w.name}: how llama.cpp multiplies {w.type.name} is not known here; numerics llamacpp has {known}")
    out = np.empty((len(x), w.shape[0]), np.float32)
    steps = plan(w.type, w.shape[0], len(x), profile.repack, profile.tiled and build.tiles, build.panels_of_iq4)
    parts = [(step, QUANTIZERS[PATHS[w.type].partner](x[step.tokens])) for step in steps]
    for step, a in parts:
        if of_panels(step, a):
            many_tokens(w, a, out[step.tokens])
        elif straight(w, step, a):
            for t in range(len(a.d)):
                one_token(w, step.path, a, t, out[step.tokens.start + t])
    parts = [(step, a) for step, a in parts if not of_panels(step, a) and not straight(w, step, a)]
    for start, rows in panels_of(w) if parts else ():
        p = integers(w.type, rows)
        dmin, minima = (p.dmin, p.minima) if p.dmin.size else (p.d[:0], p.scales[:0])  # kernels want as many axes
        for step, a in parts:
            product = np.empty((len(a.d), len(rows)), np.float32)
            multiply = getattr(ggml_product, step.path)
            multiply(p.d, p.codes, p.scales, dmin, minima, a.d, a.codes, a.sums, product)
            out[step.tokens, start : start + len(rows)] = product
    return out


FEW = 7  # tokens that are multiplied one by one, straight from the file


# paths that a kernel computes from the packed rows: one number a row, or eight lanes of signed bytes
ONE_NUMBER = {"sums_of_q4_k", "whole_blocks", "whole_super_blocks", "super_blocks"}


def of_panels(step: Step, a: Activations) -> bool:
    """Whether this part is computed from panels of unpacked rows."""
    return step.path == "super_blocks" and len(a.d) > FEW


def many_tokens(w: Matrix, a: Activations, out: F32) -> None:
    """All tokens into out [T, O], four at a time, the rest one by one."""
    (T, N), fours = a.d.shape, len(a.d) // 4 * 4
    sums = a.codes.reshape(T, N, -1, TYPES[w.type.name].GROUP).sum(axis=-1, dtype=np.int16)
    for together, part in ((4, slice(0, fours)), (1, slice(fours, T))):
        if part.start < part.stop:
            codes, below = (together_by_block(x[part], together, width) for x, width in ((a.codes, 4), (sums, 2)))
            panels(w.type.name, together, w.rows, codes, np.ascontiguousarray(a.d[part].T), below, out[part])


def together_by_block(x: NDInt, together: int, width: int) -> NDInt:
    """[T, N, W] -> [N, T / together, W / width, together, width]: what a kernel reads at once lies together."""
    T, N, _ = x.shape
    return np.ascontiguousarray(x.reshape(T // together, together, N, -1, width).transpose(2, 0, 3, 1, 4))


def straight(w: Matrix, step: Step, a: Activations) -> bool:
    """Whether a kernel computes this part from the packed rows; otherwise they are taken apart first."""
    return len(a.d) <= FEW and (step.path in ONE_NUMBER or w.type == Q.Q8_0)


def one_token(w: Matrix, path: str, a: Activations, t: int, out: F32) -> None:
    """Token t into out [O]."""
    codes, group = a.codes[t].reshape(-1), TYPES[w.type.name].GROUP
    sums = codes.reshape(-1, group).sum(axis=-1, dtype=np.int16)
    if path in ONE_NUMBER:
        columns(w.type.name, path, w.rows, codes, a.d[t], sums, out)
    else:
        matvec(w.type.name, w.rows, codes, a.d[t], sums, out)


FLOAT_PRODUCTS: dict[Q, tuple[Callable[[F32], F32], Callable[[F32, F32, F32], None]]] = {
    Q.F32: (as_it_is, ggml.by_dot_f32),
    Q.F16: (ops.half, ggml.by_dot_f16),
    Q.BF16: (ops.bfloat, ggml.by_dot_bf16),
}


def of_floats(build: Build, w: Matrix, x: F32) -> F32:
    """The product with a matrix of floats: sgemm wants several tokens, rows in fours, and rows of whole registers."""
    rounded, vec_dot = FLOAT_PRODUCTS[w.type]
    (O, I), x, out = w.shape, rounded(x), np.empty((len(x), w.shape[0]), np.float32)
    short = -I % 8 if build.pads_rows and w.type == Q.F32 else 0
    sgemm = len(x) > 1 and O % 4 == 0 and (I + short) % 8 == 0
    for start, rows in panels_of(w):
        panel, product = dequantize(w.type, rows), np.empty((len(x), len(rows)), np.float32)
        if sgemm:
            ggml.by_sgemm(padded(panel, short), padded(x, short), product)
        else:
            vec_dot(panel, x, product)
        out[:, start : start + len(rows)] = product
    return out


def padded(x: F32, zeros: int) -> F32:
    return np.pad(x, ((0, 0), (0, zeros))) if zeros else x


def rope(build: Build, x: F32, pos: Ints, how: Rope) -> F32:
    factors, scale = np.array(how.factors, np.float32), np.float32(how.scale)
    plain_last = how.adjacent and not build.fuses_left_over
    return ggml.rope(np.ascontiguousarray(x), pos, ops.rope_step(how), scale, factors, how.adjacent, plain_last)


def by_row(function: Callable[..., F32], *arrays: F32) -> F32:
    """A kernel of rows [R, n] on arrays of any shape [..., n]."""
    flat = [np.ascontiguousarray(x).reshape(-1, x.shape[-1]) for x in arrays]
    return function(*flat).reshape(arrays[0].shape)
