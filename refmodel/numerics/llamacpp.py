"""Numerics `llamacpp`: llama.cpp's own arithmetic on a CPU with AVX2, FMA and F16C, or with AVX-512 too, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ..arrays import F32, F, Ints, Matrix
from ..errors import RefmodelError
from ..forward.numerics import Emulated, Numerics
from ..kernels import activation, deltanet, ggml, ggml_attention, ggml_floats
from ..kernels.floats.product import product
from ..llamacpp.builds import AVX2, BUILDS, INSTRUCTIONS, JUDGE, Build, compiled_for
from ..llamacpp.profile import DEFAULT, Profile, profile_of
from ..ops import ggml as ops
from ..ops.attention import as_it_is
from ..ops.experts import by_expert
from ..ops.ggml_attention import flash_by_rows
from ..ops.ggml_paths import PATHS, QUANTIZERS, Step
from ..ops.ieee import half
from ..ops.rope import Rope
from ..quants import FLOATS, integers
from . import packed
from .choices import name, order, pairs_at_once, rounding, steps, steps_of_expert, tokens
from .oracle import ORACLE
from .reference import REFERENCE, decoded, panels
from .reference import linear as plain_linear


def llamacpp(profile: Profile, build: Build = JUDGE) -> Numerics:
    """The numerics that computes, bit for bit, what a llama.cpp of that build computes when it runs with that profile."""
    lanes = build.instructions.lanes
    how = {"fused_sum": build.fused_sum, "tiles_any_head": build.tiles_any_head, "halves": build.instructions.halves}
    flash = partial(ggml_attention.flash, threads=profile.threads, lanes=lanes, **how)
    if build.attends_by_rows:
        flash = partial(flash_by_rows, flash)
    off = partial(ggml_attention.without_flash, half_cache=profile.kv == "f16", lanes=lanes)
    return replace(
        REFERENCE,
        name=name(profile, build),
        emulates=Emulated(profile, build),
        by_token=False,
        linear=partial(linear, profile, build),
        experts=partial(by_expert, partial(linear_of_expert, profile, build)),
        inverse_root=ops.inverse_root,
        rms_norm=lambda x, eps: by_row(partial(ggml.rms_norm, eps=np.float32(eps)), x),
        sigmoid=partial(by_row, ggml.sigmoid),
        silu=partial(silu, lanes),
        swiglu=partial(swiglu, lanes),
        geglu=partial(by_row, lambda gate, up: ggml.geglu(gate, up, ops.gelu_table())),
        softcap=ops.softcap,
        softplus=partial(by_row, ggml.softplus),
        soft_max=partial(by_row, lambda x: ggml.soft_max(x, lanes)),
        rope=partial(rope, build),
        store=half if profile.kv == "f16" else as_it_is,
        scores=profile.flash_attn == "off",
        attention=off if profile.flash_attn == "off" else flash,
        causal_conv1d=partial(causal_conv1d, lanes),
        gated_delta_rule=deltanet.gated_delta_rule if lanes == 8 else partial(ggml.gated_delta_rule, lanes=lanes),
    )


def ladder(profile: Profile, build: Build) -> dict[str, Numerics]:
    """From exact arithmetic to llama.cpp's, one policy switched at a time: the name of a step, what it adds -> the numerics.

    activations  inputs of products rounded as llama.cpp rounds them for the type of the matrix
    attention    its cache, and its attention over it
    order        all the rest: float32 instead of float64, and the order of sums
    """
    theirs = llamacpp(profile, build)
    alone, experts = (partial(linear_of_rounded, profile, build, alone) for alone in (True, False))
    activations = replace(ORACLE, name="oracle, 8-bit activations", linear=alone, experts=partial(by_expert, experts))
    attention = replace(
        activations,
        name="oracle, 8-bit activations, their attention",
        store=lambda x: theirs.store(x.astype(np.float32)).astype(x.dtype),
        by_token=False,
        scores=theirs.scores,
        attention=partial(in_float32, theirs.attention),
    )
    return {"activations": activations, "attention": attention, "order": theirs}


def linear_of_rounded(profile: Profile, build: Build, alone: bool, w: Matrix, x: F) -> F:
    """The exact product of w [O, I] with x [T, I], rounded as llama.cpp rounds it for this type: [T, O] in the dtype of x.

    alone  as in choices.order
    """
    small = x.astype(np.float32)
    if w.type in FLOATS:
        to_their_type = rounding(w.type, order(profile, build, w, len(x), alone))
        return plain_linear(w, x if to_their_type is as_it_is else to_their_type(small).astype(x.dtype))
    if w.type not in PATHS:
        return plain_linear(w, x)
    partner = PATHS[w.type].partner
    a = QUANTIZERS[partner](tokens(build, w.type, small))
    rounded = a.d[..., None].astype(x.dtype) * a.codes
    out = plain_linear(w, rounded.reshape(x.shape))
    if partner == "q8_1":  # minima multiply sums that are rounded on their own
        lost = a.sums - rounded.sum(axis=-1)
        for start, rows in panels(w):
            out[:, start : start + len(rows)] -= lost @ integers(w.type, rows).dmin.T
    return out


def in_float32(attention: Callable[..., F], q: F, k: F, v: F, scale: float, kq: F, kq_soft_max: F, window: int) -> F:
    """An attention of float32 arrays, for arrays of another dtype; arguments as in ops.attention.attention."""
    seen = [x.astype(np.float32) for x in (kq, kq_soft_max)]
    out = attention(*(x.astype(np.float32) for x in (q, k, v)), scale, *seen, window)
    kq[:], kq_soft_max[:] = seen
    return out.astype(q.dtype)


def policy_of(options: str) -> Numerics:
    """The numerics for what follows `llamacpp:` in a name.

    options  a profile, `build=COMMIT` for another build, `cpu=NAME` for kernels of other processors, with commas between them

    RefmodelError for anything else.
    """
    words = options.split(",")
    chosen = dict(word.split("=", 1) for word in words if word.startswith(("build=", "cpu=")))
    commit, cpu = chosen.get("build", JUDGE.commit), chosen.get("cpu", AVX2.name)
    if commit not in BUILDS or cpu not in INSTRUCTIONS:
        known = f"build={'|'.join(BUILDS)}, cpu={'|'.join(INSTRUCTIONS)}"
        raise RefmodelError(
            f"--numerics llamacpp:{options[:60]}: that build is not known here; known are {known}; choose one of these"
        )
    how = ",".join(word for word in words if not word.startswith(("build=", "cpu=")))
    return llamacpp(profile_of(how) if how else DEFAULT, compiled_for(BUILDS[commit], INSTRUCTIONS[cpu]))


def linear(profile: Profile, build: Build, w: Matrix, x: F32) -> F32:
    """llama.cpp's product of w [O, I] and x [T, I], by the path that it takes for this type and these sizes: [T, O].

    TensorError for a type without a known path. Source: ggml_compute_forward_mul_mat.
    """
    return (
        of_floats(order(profile, build, w, len(x), True), w, x)
        if w.type in FLOATS
        else by_steps(steps(profile, build, w, len(x)), w, tokens(build, w.type, x))
    )


def linear_of_expert(profile: Profile, build: Build, w: Matrix, x: F32) -> F32:
    """`linear` for one expert of many, which takes other paths. Source: ggml_compute_forward_mul_mat_id."""
    if w.type in FLOATS:
        return of_floats(order(profile, build, w, len(x), False), w, x)
    return by_steps(steps_of_expert(profile, build, w, len(x)), w, tokens(build, w.type, x))


def by_steps(planned: list[Step], w: Matrix, x: F32) -> F32:
    """The product of a packed w [O, I] and x [T, I], step by step: [T, O]."""
    x, out = np.ascontiguousarray(x), np.empty((len(x), w.shape[0]), np.float32)
    for step in planned:
        packed.multiply(w, step.path, x[step.tokens], out[step.tokens])
    return out


def of_floats(how: str, w: Matrix, x: F32) -> F32:
    """The product of a matrix of floats w [O, I] and x [T, I] in an order of ops.ggml_floats.ORDERS: [T, O]."""
    x, out = rounding(w.type, how)(np.ascontiguousarray(x)), np.empty((len(x), w.shape[0]), np.float32)
    if how in ggml_floats.DOTS:
        for start, rows in panels(w):
            ggml_floats.product(how, decoded(w.type, rows), x, out[:, start : start + len(rows)])
    else:
        product(w.type.name, how, w.rows, x, out)
    return out


def rope(build: Build, x: F32, pos: Ints, how: Rope) -> F32:
    """Rotate heads x [T, H, D] at positions pos [T] as that build does: ops.ggml.rope by its kernel."""
    factors, scale, magnitude = np.array(how.factors, np.float32), np.float32(how.scale), np.float32(how.magnitude)
    unscaled = np.array(how.unscaled or (0.0,) * len(how.factors), np.float32)
    step, at_once = ops.rope_step(how), pairs_at_once(build, how)
    return ggml.rope(np.ascontiguousarray(x), pos, step, scale, factors, unscaled, magnitude, how.adjacent, at_once)


def causal_conv1d(lanes: int, x: F32, w: F32) -> F32:
    """ops.ggml.causal_conv1d by its kernel: [K-1+T, C] with w [C, K] -> [T, C].

    Whole halves of a register of taps are added without fusing, as the plain kernel adds them.
    """
    return ggml.causal_conv1d(x, w, lanes) if w.shape[1] % (lanes // 2) else deltanet.causal_conv1d(x, w)


def silu(lanes: int, x: F32) -> F32:
    """ops.ggml.silu by its kernel, any shape.

    Rows of whole eights are computed by the polynomial only, and so have the same bits from the kernel of any shape.
    """
    return activation.silu(x) if lanes == 8 and x.shape[-1] % 8 == 0 else by_row(lambda rows: ggml.silu(rows, lanes), x)


def swiglu(lanes: int, gate: F32, up: F32) -> F32:
    """ops.ggml.swiglu by its kernel, two arrays of one shape."""
    if lanes == 8 and gate.shape[-1] % 8 == 0:
        return activation.swiglu(gate, up)
    return by_row(lambda a, b: ggml.swiglu(a, b, lanes), gate, up)


def by_row(function: Callable[..., F32], *arrays: F32) -> F32:
    """Call a kernel of rows [R, n] on arrays of any shape [..., n]; the result has the shape of the first."""
    flat = [np.ascontiguousarray(x).reshape(-1, x.shape[-1]) for x in arrays]
    return function(*flat).reshape(arrays[0].shape)


LLAMACPP = llamacpp(DEFAULT)
