"""The paths that keep one running number a row: how the whole numbers of a block become a part of it.

Twins: the functions of ops.ggml_product of the same names; for a type of 32 weights `super_blocks` means the same, with groups
as large as blocks.
"""

import numpy as np
from numba.extending import overload

from ..language.arithmetic import fma
from ..language.compile_time import INLINE, for_kernels

# groups whose products are added up as whole numbers, where these are not all of a block
STRETCH = {"pairs_of_q4_k": 2, "halves_of_q2_k": 8}
# paths that sum up what is taken away on its own
APART = {"sums_of_q4_k", "pairs_of_q4_k", "halves_of_q2_k"}


@for_kernels
def added(path, dot, below, d, dmin, factor, total, under):
    """Add the sums of some groups to the partial dot products, as the path does: f32 lanes all, one for each product.

    dot, below    Σ scale · Σ code · q, and Σ minimum · Σ q
    d, dmin       the scales of the block of weights and of its minima
    factor        the scale of the token's block
    total, under  the partial sums before; total - under is the product

    Returns total and under. Twin of the function of ops.ggml_product that the path names.
    """


@overload(added, jit_options=INLINE)
def _added(path, dot, below, d, dmin, factor, total, under):
    def super_blocks(path, dot, below, d, dmin, factor, total, under):
        return fma(fma(dmin * np.float32(-1), below, d * dot), factor, total), under

    def whole_blocks(path, dot, below, d, dmin, factor, total, under):
        return fma(dot, d * factor, total), under

    def sums_of_q4_k(path, dot, below, d, dmin, factor, total, under):
        return fma(dot, d * factor, total), fma(below, dmin * factor, under)

    return {
        "super_blocks": super_blocks,
        "whole_blocks": whole_blocks,
        "whole_super_blocks": whole_blocks,
        "sums_of_q4_k": sums_of_q4_k,
        "pairs_of_q4_k": sums_of_q4_k,
        "halves_of_q2_k": sums_of_q4_k,
    }[path.value]
