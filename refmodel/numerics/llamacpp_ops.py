"""llama.cpp's arithmetic once more: every operation is the NumPy function of refmodel/ops. The same bits as numerics `llamacpp`.

It is slower by far, but compiles nothing, and what a reader of ops/ggml*.py reads is run.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ..arrays import F32, Ints, Matrix
from ..forward.numerics import Emulated, Numerics
from ..llamacpp.builds import Build
from ..llamacpp.profile import Profile
from ..ops import ggml, ggml_attention, ggml_product
from ..ops.attention import as_it_is
from ..ops.experts import by_expert
from ..ops.ggml_floats import ORDERS
from ..ops.ggml_paths import PATHS, QUANTIZERS, Step
from ..ops.ieee import half
from ..ops.rope import Rope
from ..quants import FLOATS, dequantize, integers
from .choices import name, order, pairs_at_once, rounding, steps, steps_of_expert, tokens
from .numpy import NUMPY

ROWS = 1 << 18  # numbers of sums at once: so they stay in a processor's cache


def llamacpp_by_ops(profile: Profile, build: Build) -> Numerics:
    """The numerics that computes, bit for bit, what a llama.cpp of that build computes when it runs with that profile."""
    lanes = build.instructions.lanes
    flash = partial(
        ggml_attention.flash,
        threads=profile.threads,
        fused_sum=build.fused_sum,
        tiles_any_head=build.tiles_any_head,
        halves=build.instructions.halves,
        lanes=lanes,
    )
    if build.attends_by_rows:
        flash = partial(ggml_attention.flash_by_rows, flash)
    off = partial(ggml_attention.without_flash, half_cache=profile.kv == "f16", lanes=lanes)
    return replace(
        NUMPY,
        name=name(profile, build),
        emulates=Emulated(profile, build),
        by_token=False,
        linear=partial(linear, profile, build),
        experts=partial(by_expert, partial(linear_of_expert, profile, build)),
        inverse_root=ggml.inverse_root,
        rms_norm=ggml.rms_norm,
        sigmoid=ggml.sigmoid,
        silu=partial(ggml.silu, lanes=lanes),
        swiglu=partial(ggml.swiglu, lanes=lanes),
        geglu=ggml.geglu,
        softcap=ggml.softcap,
        softplus=ggml.softplus,
        soft_max=partial(ggml.soft_max, lanes=lanes),
        rope=partial(rope, build),
        store=half if profile.kv == "f16" else as_it_is,
        scores=profile.flash_attn == "off",
        attention=off if profile.flash_attn == "off" else flash,
        causal_conv1d=partial(ggml.causal_conv1d, lanes=lanes),
        gated_delta_rule=partial(ggml.gated_delta_rule, lanes=lanes),
    )


def linear(profile: Profile, build: Build, w: Matrix, x: F32) -> F32:
    """The product of w [O, I] and x [T, I] as llamacpp.linear computes it: [T, O]. TensorError for a type without a known path."""
    return (
        of_floats(order(profile, build, w, len(x), True), w, x)
        if w.type in FLOATS
        else by_steps(steps(profile, build, w, len(x)), w, tokens(build, w.type, x))
    )


def linear_of_expert(profile: Profile, build: Build, w: Matrix, x: F32) -> F32:
    """`linear` for one expert of many."""
    if w.type in FLOATS:
        return of_floats(order(profile, build, w, len(x), False), w, x)
    return by_steps(steps_of_expert(profile, build, w, len(x)), w, tokens(build, w.type, x))


def by_steps(planned: list[Step], w: Matrix, x: F32) -> F32:
    """The product of a packed w [O, I] and x [T, I], step by step: [T, O]."""
    parts = []
    for step in planned:
        rounded = QUANTIZERS[PATHS[w.type].partner](x[step.tokens])
        path = getattr(ggml_product, step.path)
        parts.append(by_rows(lambda some, path=path, rounded=rounded: path(integers(w.type, some), rounded), w, len(x)))
    return np.concatenate(parts)


def of_floats(how: str, w: Matrix, x: F32) -> F32:
    """The product of a matrix of floats w [O, I] and x [T, I] in an order of ORDERS: [T, O]."""
    dot, rounded = ORDERS[how], rounding(w.type, how)(x)[:, None]
    return by_rows(lambda rows: dot(dequantize(w.type, rows)[None], rounded), w, len(x))


def by_rows(product: Callable[..., F32], w: Matrix, T: int) -> F32:
    """A product [T, O] of packed rows, from products of a few rows at a time."""
    step = max(1, ROWS // (32 * T))
    return np.concatenate([product(w.rows[start : start + step]) for start in range(0, w.shape[0], step)], axis=1)


def rope(build: Build, x: F32, pos: Ints, how: Rope) -> F32:
    """Rotate heads x [T, H, D] at positions pos [T] as that build does."""
    return ggml.rope(x, pos, how, pairs_at_once(build, how))
