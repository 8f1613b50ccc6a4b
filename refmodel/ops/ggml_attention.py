"""llama.cpp's three ways to compute attention on the CPU. Shapes as in ops.attention; everything is float32.

Its cache has room for a multiple of PAGE tokens, and cells that hold no token are masked, not left out: they count in the
choice of a path and add zeros to sums. Source: build_attn_mha; ggml_compute_forward_flash_attn_ext_f16.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..arrays import F32, Bools
from .attention import first_seen
from .ggml import EXP, sum_of
from .ggml_floats import dot_f16, dot_f32, dot_sgemm
from .ieee import Number, f32, fma, fma_of_halves, half, libm

Part = tuple[Number, Number, F32]  # the largest score, the sum of weights, the sum of values [D]
PAGE = 256  # cells
TILE = 64  # queries and keys of a tile; a call of fewer tokens goes row by row
HALVES = 128  # half floats of a step, where there are instructions for them
SPLIT = 512  # from so many cells on, the keys of a single token are split among the threads


def without_flash(
    q: F32, k: F32, v: F32, scale: float, kq: F32, kq_soft_max: F32, window: int, *, half_cache: bool, lanes: int
) -> F32:
    """ops.attention.attention as three matrices: scores, softmax, weighted values. The same shapes, float32.

    half_cache  whether keys and values are half floats; then queries and weights are rounded to half floats too
    lanes       of a register, 8 or 16

    Returns [T, H, D]. Source: build_attn_mha.
    """
    (T, H, D), (S, G, _) = q.shape, k.shape
    cells, out = -(-S // PAGE) * PAGE, np.empty_like(q)
    scores_dot, values_dot = dots(T, H, D, half_cache, lanes)
    stored, shown = half if half_cache else np.asarray, visible(T, S, window)
    for h in range(H):
        g = h // (H // G)
        values, weights = np.zeros((D, cells), f32), np.zeros((T, cells), f32)
        values[:, :S] = v[:, g].T
        raw = scores_dot(k[None, :, g], stored(q[:, h])[:, None])  # [T, S]
        weights[:, :S] = soft_max(np.where(shown, raw * f32(scale), -f32(np.inf)), lanes)
        out[:, h] = values_dot(values[None], stored(weights)[:, None])
        if kq.size:
            kq[h], kq_soft_max[h] = np.where(shown, raw, f32(0)), weights[:, :S]
    return out


def visible(T: int, S: int, window: int) -> Bools:
    """Whether each of the last T tokens sees each of S keys, [T, S]; `window` is how many it sees, 0 for all."""
    behind = np.arange(S - T, S)[:, None] - np.arange(S)  # how far a key lies behind its query
    return (behind >= 0) & (behind < (window or S))


def dots(T: int, H: int, D: int, half_cache: bool, lanes: int) -> tuple[Callable[[F32, F32], F32], Callable[[F32, F32], F32]]:
    """How scores and values are summed: two functions (x, y) [..., n] -> [...] for T tokens, H heads of D numbers.

    A product of several tokens goes to sgemm if its lengths allow it and the queries are contiguous: converted ones always are,
    float ones of several heads are not.
    """
    alone = partial(dot_f16 if half_cache else dot_f32, lanes=lanes)
    sgemm = partial(dot_sgemm, lanes=lanes)
    scores = sgemm if T > 1 and D % lanes == 0 and (half_cache or H == 1) else alone
    return scores, sgemm if T > 1 and D % 4 == 0 else alone


def soft_max(x: F32, lanes: int) -> F32:
    """e^(x − max) / Σ of rows [T, S]. Source: ggml_compute_forward_soft_max_f32, ggml_vec_soft_max_f32."""
    T, S = x.shape
    registers = np.full((T, -(-S // lanes) * lanes), -np.inf, f32)
    registers[:, :S] = x
    p = EXP[lanes](registers - x.max(axis=1, keepdims=True))
    return (p * (1 / sum_of(p, lanes)).astype(f32)[:, None])[:, :S]


def flash(
    q: F32,
    k: F32,
    v: F32,
    scale: float,
    kq: F32,
    kq_soft_max: F32,
    window: int,
    *,
    threads: int,
    fused_sum: bool,
    tiles_any_head: bool,
    halves: bool,
    lanes: int,
) -> F32:
    """ops.attention.attention as flash attention: keys and values are half floats, and scores are never a matrix. The same shapes.

    kq, kq_soft_max            left as they are
    threads                    split the keys of one token from SPLIT cells on
    fused_sum, tiles_any_head  as in llamacpp.builds.Build
    halves                     as in llamacpp.builds.Instructions
    lanes                      of a register, 8 or 16

    Returns [T, H, D]. Source: ggml_compute_forward_flash_attn_ext_f16.
    """
    (T, H, D), (S, G, _) = q.shape, k.shape
    k, v, out = half(k), half(v), np.empty_like(q)
    cells, row = -(-S // PAGE) * PAGE, partial(one_row, scale=scale, fused_sum=fused_sum, halves=halves, lanes=lanes)
    step = -(-cells // threads) if T == 1 and cells >= SPLIT else cells
    for h in range(H):
        keys, values = k[:, h // (H // G)], v[:, h // (H // G)]
        if T >= TILE and (tiles_any_head or D % lanes == 0):
            out[:, h] = in_tiles(q[:, h], keys, values, scale, window, lanes)
            continue
        for t in range(T):
            seen = S - T + t + 1
            first = first_seen(seen, window)
            parts = [
                row(q[t, h], keys[max(i, first) : min(i + step, seen)], values[max(i, first) : min(i + step, seen)])
                for i in range(first // step * step, seen, step)
            ]
            out[t, h] = merged(parts) if len(parts) > 1 else parts[0][2] * (f32(1) / parts[0][1])
    return out


def flash_by_rows(flash: Callable[..., F32], q: F32, k: F32, v: F32, scale: float, kq: F32, kq_soft_max: F32, window: int) -> F32:
    """`flash`, or its kernel, in calls of so few tokens that none is computed in tiles. Queries know nothing of each other.

    The other arguments are those of ops.attention.attention. Returns [T, H, D].
    Source: ggml_compute_forward_flash_attn_ext_f16 of llama.cpp 02805ee.
    """
    T, S = len(q), len(k)
    ends = np.linspace(0, T, -(-T // (TILE - 1)) + 1).astype(int)
    parts = zip(np.split(q, ends[1:-1]), S - T + ends[1:], strict=True)
    return np.concatenate([flash(some, k[:n], v[:n], scale, kq, kq_soft_max, window) for some, n in parts])


def one_row(q: F32, k: F32, v: F32, scale: float, fused_sum: bool, halves: bool, lanes: int) -> Part:
    """One query [D] over keys and values [S, D], key by key. The sum of values is kept as half floats.

    halves  whole steps of HALVES numbers are computed as half floats, with factors that are half floats too

    Returns the largest score, the sum of weights, and the sum of values [D].
    """
    exp, q, acc = libm("expf"), half(q), np.zeros(v.shape[1], f32)
    n = v.shape[1] // HALVES * HALVES if halves else 0
    top: Number = f32(-np.inf)
    total: Number = f32(0)
    for key, value in zip(k, v, strict=True):
        s = dot_f16(key, q, lanes) * f32(scale)
        if s > top:
            fade, weight = exp(top - s), f32(1)
            top, acc = s, half(acc * np.where(np.arange(acc.size) < n, half(np.asarray(fade)), fade))
        else:
            fade, weight = f32(1), exp(s - top)
        acc = np.append(fma_of_halves(value[:n], half(np.asarray(weight)), acc[:n]), half(fma(value[n:], weight, acc[n:])))
        total = fma(total, fade, weight) if fused_sum else total * fade + weight
    return top, total, acc


def merged(parts: list[Part]) -> F32:
    """The output [D] from the parts that several threads computed, in order. Source: ggml_flash_attn_ext_reduce_partials."""
    exp, acc = libm("expf"), np.zeros_like(parts[0][2])
    top: Number = f32(-np.inf)
    total: Number = f32(0)
    for part_top, part_total, part in parts:
        new = np.maximum(top, part_top)
        fade, weight = exp(top - new), exp(part_top - new)
        acc, total, top = fma(acc, fade, part * weight), fma(total, fade, part_total * weight), new
    return acc * (f32(1) / total)


def in_tiles(q: F32, k: F32, v: F32, scale: float, window: int, lanes: int) -> F32:
    """All queries of one head [T, D] over keys and values [S, D], 64 keys at a time, in float32. Returns [T, D].

    Source: ggml_compute_forward_flash_attn_ext_tiled, simd_gemm.
    """
    T, S, exp = len(q), len(k), libm("expf")
    acc, total, top = np.zeros((T, v.shape[1]), f32), np.zeros(T, f32), np.full(T, -np.inf, f32)
    for start in range(0, S, TILE):
        keys, values, shown = k[start : start + TILE], v[start : start + TILE], visible(T, S, window)[:, start : start + TILE]
        raw = added_in_order(q, keys.T, np.zeros((T, len(keys)), f32)) * f32(scale)
        scores = np.full((T, TILE), -np.inf, f32)
        scores[:, : len(keys)][shown] = raw[shown]
        t = np.flatnonzero(shown.any(axis=1))  # the others skip this tile
        new = np.maximum(top[t], scores[t].max(axis=1))
        fade = np.where(new > top[t], exp(top[t] - new), f32(1))
        p = EXP[lanes](scores[t] - new[:, None])
        total[t] = ((total[t] * fade).astype(np.float64) + sum_of(p, lanes)).astype(f32)
        acc[t] = added_in_order(p[:, : len(values)], values, acc[t] * fade[:, None])
        top[t] = new
    return acc * (f32(1) / total)[:, None]


def added_in_order(a: F32, b: F32, acc: F32) -> F32:
    """acc [T, N] + a [T, M] @ b [M, N], the products added in order by fma: [T, N]. Source: simd_gemm."""
    for m in range(a.shape[1]):
        acc = fma(a[:, m, None], b[m], acc)
    return acc
