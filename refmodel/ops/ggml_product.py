"""llama.cpp's products with a packed matrix: the sums of whole numbers, and the order in which they become a float.

A path takes the matrix apart as `Integers` (rows [O, N]) and the tokens as `Activations` ([T, N]) and gives float32 [T, O].
Which path runs is chosen by the type, the number of rows and the number of tokens (`ggml_paths.plan`). In all of them a
product of scales is rounded before it multiplies a sum. Kernels of the same names run in their place.
Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu: arch/x86/quants.c, arch/x86/repack.cpp, tiled/, llamafile/sgemm.cpp, amx/mmq.cpp.
"""

import numpy as np

from ..arrays import F32, NDInt
from ..quants.integers import Activations, Integers
from .ggml_floats import hsum
from .ieee import f32, fma


def sums(w: NDInt, a: NDInt, width: int) -> NDInt:
    """Σ w · a of each `width` neighbours: codes w [O, N, W] and a [T, N, W] -> [T, O, N, W / width] int32."""
    theirs, ours = (np.moveaxis(x.astype(f32).reshape(*x.shape[:2], -1, width), 0, 2) for x in (w, a))  # [N, W / width, ., width]
    return (ours @ theirs.swapaxes(2, 3)).astype(np.int32).transpose(2, 3, 0, 1)  # exact in any order: far below 2^24


# ---- types of 32 weights a block


def dots_of_four(w: Integers, a: Activations) -> NDInt:
    """Σ of four neighbours' products: lane i of block n is elements 4i to 4i+3, [T, O, N, 8]."""
    return sums(w.codes, a.codes, 4)


def both_scales(w: Integers, a: Activations) -> F32:
    """d of the weights times d of the activations, [T, O, N]."""
    return w.d * a.d[:, None]


def eight_lanes(w: Integers, a: Activations) -> F32:
    """One register of 8 lanes over all blocks. Source: ggml_vec_dot_q8_0_q8_0 and its like, tinyBLAS_Q0_AVX."""
    lanes, d = dots_of_four(w, a).astype(f32), both_scales(w, a)
    acc = np.zeros((*d.shape[:2], 8), f32)
    for n in range(d.shape[2]):
        acc = fma(d[:, :, n, None], lanes[:, :, n], acc)
    return hsum(acc)


def alternating_lanes(w: Integers, a: Activations) -> F32:
    """Two registers, of even and of odd blocks; the sum of a last block without a partner is added to theirs.

    Source: ggml_vec_dot_iq4_nl_q8_0, ggml_vec_dot_mxfp4_q8_0.
    """
    total, last, d = _alternating(w, a)
    return fma(d, last, total) if w.d.shape[1] % 2 else total


def alternating_lanes_rounded(w: Integers, a: Activations) -> F32:
    """alternating_lanes, where the compiler does not fuse the last addition. Source: ggml_vec_dot_iq4_nl_q8_0."""
    total, last, d = _alternating(w, a)
    return d * last + total if w.d.shape[1] % 2 else total


def _alternating(w: Integers, a: Activations) -> tuple[F32, F32, F32]:
    """The sum of whole pairs of blocks; of the last block the sum of its products, and the scale."""
    dots, d = dots_of_four(w, a), both_scales(w, a)
    acc = [np.zeros((*d.shape[:2], 8), f32), np.zeros((*d.shape[:2], 8), f32)]
    for n in range(d.shape[2] // 2 * 2):
        acc[n % 2] = fma(d[:, :, n, None], dots[:, :, n].astype(f32), acc[n % 2])
    return hsum(acc[0] + acc[1]), dots[:, :, -1].sum(axis=-1).astype(f32), d[:, :, -1]


def eight_lanes_and_minima(w: Integers, a: Activations) -> F32:
    """eight_lanes, and the minima times the sums of the activations. Source: ggml_vec_dot_q4_1_q8_1, ggml_vec_dot_q5_1_q8_1."""
    total = np.zeros((len(a.d), len(w.d)), f32)
    for n in range(w.d.shape[1]):
        total = fma(-w.dmin[:, n], a.sums[:, n, None], total)
    return eight_lanes(w, a) + total


def whole_blocks(w: Integers, a: Activations) -> F32:
    """One number over all blocks.

    Source: ggml_gemv_q4_0_8x8_q8_0, ggml_gemm_iq4_nl_8x8_q8_0 and their like; tinygemm_kernel_amx.
    """
    dots, d = dots_of_four(w, a).sum(axis=-1).astype(f32), both_scales(w, a)
    acc = np.zeros(d.shape[:2], f32)
    for n in range(d.shape[2]):
        acc = fma(dots[:, :, n], d[:, :, n], acc)
    return acc


def whole_blocks_and_minima(w: Integers, a: Activations) -> F32:
    """The same; after each block the minima times the sums of the activations. Source: tinygemm_kernel_amx."""
    dots, d = dots_of_four(w, a).sum(axis=-1).astype(f32), both_scales(w, a)
    acc = np.zeros(d.shape[:2], f32)
    for n in range(d.shape[2]):
        acc = fma(-w.dmin[:, n], a.sums[:, n, None], fma(dots[:, :, n], d[:, :, n], acc))
    return acc


# ---- types of 256 weights a block


def scaled_sums(w: Integers, a: Activations) -> NDInt:
    """scale · Σ code · code of each group, [T, O, N, G]."""
    return sums(w.codes, a.codes, 256 // w.scales.shape[-1]) * w.scales.astype(np.int32)


def scaled_minima(w: Integers, a: Activations) -> NDInt:
    """minimum · Σ code of the activations of each group, [T, O, N, G]."""
    G = w.scales.shape[-1]
    return w.minima.astype(np.int32) * a.sums.reshape(*a.d.shape, G, 16 // G).sum(axis=-1)[:, None]


def super_blocks(w: Integers, a: Activations) -> F32:
    """One number over all blocks, the scale of the weights first. Source: tiled_run_microtile."""
    dots = scaled_sums(w, a).sum(axis=-1).astype(f32)
    minima = scaled_minima(w, a).sum(axis=-1).astype(f32) if w.dmin.size else dots
    acc = np.zeros(dots.shape[:2], f32)
    for n in range(dots.shape[2]):
        value = w.d[:, n] * dots[:, :, n]
        if w.dmin.size:
            value = fma(-w.dmin[:, n], minima[:, :, n], value)
        acc = fma(value, a.d[:, n, None], acc)
    return acc


def whole_super_blocks(w: Integers, a: Activations) -> F32:
    """One number over all blocks, both scales first. Source: tinygemm_kernel_amx; the panels of IQ4_XS in llama.cpp 0ad4a86."""
    dots, d = scaled_sums(w, a).sum(axis=-1).astype(f32), both_scales(w, a)
    acc = np.zeros(d.shape[:2], f32)
    for n in range(d.shape[2]):
        acc = fma(dots[:, :, n], d[:, :, n], acc)
    return acc


def whole_super_blocks_and_minima(w: Integers, a: Activations) -> F32:
    """The same; after each block the minima. Source: tinygemm_kernel_amx, tinygemm_kernel_vnni."""
    dots, minima = (x.sum(axis=-1).astype(f32) for x in (scaled_sums(w, a), scaled_minima(w, a)))
    d, dmin = both_scales(w, a), w.dmin * a.d[:, None]
    acc = np.zeros(d.shape[:2], f32)
    for n in range(d.shape[2]):
        acc = fma(minima[:, :, n], -dmin[:, :, n], fma(dots[:, :, n], d[:, :, n], acc))
    return acc


def sums_of_q4_k(w: Integers, a: Activations) -> F32:
    """One number for the products and one for the minima. Source: ggml_gemv_q4_K_8x8_q8_K, ggml_gemv_q2_K_8x8_q8_K."""
    return _in_parts(w, a, parts=1)


def pairs_of_q4_k(w: Integers, a: Activations) -> F32:
    """sums_of_q4_k, a pair of groups at a time. Source: ggml_gemm_q4_K_8x8_q8_K."""
    return _in_parts(w, a, parts=4)


def halves_of_q2_k(w: Integers, a: Activations) -> F32:
    """sums_of_q4_k, half a block at a time. Source: ggml_gemm_q2_K_8x8_q8_K."""
    return _in_parts(w, a, parts=2)


def _in_parts(w: Integers, a: Activations, parts: int) -> F32:
    shape = (len(a.d), *w.d.shape, parts, w.scales.shape[-1] // parts)
    dots, minima = (x.reshape(shape).sum(axis=-1).astype(f32) for x in (scaled_sums(w, a), scaled_minima(w, a)))
    d, dmin = both_scales(w, a), w.dmin * a.d[:, None]
    acc, below = np.zeros(d.shape[:2], f32), np.zeros(d.shape[:2], f32)
    for n in range(d.shape[2]):
        for p in range(parts):
            acc = fma(dots[:, :, n, p], d[:, :, n], acc)
            below = fma(minima[:, :, n, p], dmin[:, :, n], below)
    return acc - below


def lanes_of_32(w: Integers, a: Activations) -> NDInt:
    """Lane i is elements 4i to 4i+3 of all eight groups of 32, each times its scale, [T, O, N, 8]."""
    fours = dots_of_four(w, a).reshape(len(a.d), *w.d.shape, 8, 8)
    return (fours * w.scales.astype(np.int32)[..., None]).sum(axis=-2)


def lanes_of_16(codes: NDInt, w: Integers, a: Activations) -> NDInt:
    """Groups of 16 in pairs: lanes 0 to 3 are fours of even groups, lanes 4 to 7 of odd ones, [T, O, N, 8]."""
    fours = sums(codes, a.codes, 4).reshape(len(a.d), *w.d.shape, 16, 4) * w.scales.astype(np.int32)[..., None]
    return fours.reshape(*fours.shape[:3], 8, 8).sum(axis=-2)


def _over_blocks(w: Integers, a: Activations, lanes: NDInt, first: NDInt | None) -> F32:
    """One register of 8 lanes over all blocks; `first` are the minima of Q2_K, which go into it before the products."""
    d, floats = both_scales(w, a), lanes.astype(f32)
    acc = np.zeros((*d.shape[:2], 8), f32)
    for n in range(d.shape[2]):
        if first is not None:
            acc = fma(-(a.d[:, n, None] * w.dmin[:, n])[..., None], first[:, :, n].astype(f32), acc)
        acc = fma(d[:, :, n, None], floats[:, :, n], acc)
    return hsum(acc)


def lanes_of_iq4_xs(w: Integers, a: Activations) -> F32:
    """One register of 8 lanes over all blocks, a scale for each group of 32. Source: ggml_vec_dot_iq4_xs_q8_K."""
    return _over_blocks(w, a, lanes_of_32(w, a), None)


def lanes_of_q4_k(w: Integers, a: Activations) -> F32:
    """The minima in four lanes, two groups each, added at the end. Source: ggml_vec_dot_q4_K_q8_K."""
    minima = scaled_minima(w, a).reshape(len(a.d), *w.d.shape, 4, 2).sum(axis=-1).astype(f32)
    below = np.zeros((len(a.d), len(w.d), 4), f32)
    for n in range(w.d.shape[1]):
        below = fma(-(a.d[:, n, None] * w.dmin[:, n])[..., None], minima[:, :, n], below)
    return _over_blocks(w, a, lanes_of_32(w, a), None) + ((below[..., 0] + below[..., 2]) + (below[..., 1] + below[..., 3]))


def lanes_of_q5_k(w: Integers, a: Activations) -> F32:
    """The minima in one number, added at the end. Source: ggml_vec_dot_q5_K_q8_K."""
    minima, below = scaled_minima(w, a).sum(axis=-1).astype(f32), np.zeros((len(a.d), len(w.d)), f32)
    for n in range(w.d.shape[1]):
        below = fma(-(a.d[:, n, None] * w.dmin[:, n]), minima[:, :, n], below)
    return _over_blocks(w, a, lanes_of_32(w, a), None) + below


def lanes_of_q2_k(w: Integers, a: Activations) -> F32:
    """The minima of two groups go into each lane. Source: ggml_vec_dot_q2_K_q8_K."""
    minima = scaled_minima(w, a).reshape(len(a.d), *w.d.shape, 8, 2).sum(axis=-1)
    return _over_blocks(w, a, lanes_of_16(w.codes, w, a), minima)


def lanes_of_q3_k(w: Integers, a: Activations) -> F32:
    """One register of 8 lanes over all blocks, a scale for each group of 16. Source: ggml_vec_dot_q3_K_q8_K."""
    return _over_blocks(w, a, lanes_of_16(w.codes, w, a), None)


def lanes_of_q6_k(w: Integers, a: Activations) -> F32:
    """Codes from 0 to 63 are multiplied; from each lane 32 times the activations of two groups is taken.

    Source: ggml_vec_dot_q6_K_q8_K.
    """
    offset = (32 * w.scales.astype(np.int32) * a.sums[:, None]).reshape(len(a.d), *w.d.shape, 8, 2).sum(axis=-1)
    return _over_blocks(w, a, lanes_of_16(w.codes + 32, w, a) - offset, None)
