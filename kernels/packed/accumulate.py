"""The paths that keep one running number a row: how the whole numbers of a block become a part of it.

Twins: the functions of ops.ggml_product of the same names; for a type of 32 weights `super_blocks` means the same, with groups
as large as blocks.
"""

import numpy as np

from ..language.arithmetic import fma
from ..language.compile_time import inline

# groups whose products are added up as whole numbers, where these are not all of a block
GROUPS_AT_ONCE = {"pairs_of_q4_k": 2, "halves_of_q2_k": 8}
# the paths whose minima multiply what Q8_1 says that codes add up to, a float
FLOAT_SUMS = {"whole_blocks_and_minima"}
# paths that sum up what is taken away on its own
MINIMA_ALONE = {"sums_of_q4_k", "pairs_of_q4_k", "halves_of_q2_k"}


@inline
def super_blocks(dot, below, d, dmin, factor, total, under):
    """Add the sums of some groups to the partial dot products: f32 lanes all, one for each product.

    dot, below    Σ scale · Σ code · q, and Σ minimum · Σ q; of a path of FLOAT_SUMS, the sum of Q8_1
    d, dmin       the scales of the block of weights and of its minima
    factor        the scale of the token's block
    total, under  the partial sums before; total - under is the product

    Returns total and under.
    """
    return fma(fma(dmin * np.float32(-1), below, d * dot), factor, total), under


@inline
def whole_blocks(dot, below, d, dmin, factor, total, under):
    """The same, of a type without minima: the product of the scales is rounded first."""
    return fma(dot, d * factor, total), under


@inline
def whole_blocks_and_minima(dot, below, d, dmin, factor, total, under):
    """The same, and then the minima, whose products have the token's scale in them."""
    return fma(dmin * np.float32(-1), below, fma(dot, d * factor, total)), under


@inline
def whole_super_blocks_and_minima(dot, below, d, dmin, factor, total, under):
    """The same, with the token's scale still to be multiplied."""
    return fma(below, dmin * factor * np.float32(-1), fma(dot, d * factor, total)), under


@inline
def sums_of_q4_k(dot, below, d, dmin, factor, total, under):
    """The same, with what is taken away summed up on its own."""
    return fma(dot, d * factor, total), fma(below, dmin * factor, under)


ADDED = {
    "super_blocks": super_blocks,
    "whole_blocks": whole_blocks,
    "whole_super_blocks": whole_blocks,
    "whole_blocks_and_minima": whole_blocks_and_minima,
    "whole_super_blocks_and_minima": whole_super_blocks_and_minima,
    "sums_of_q4_k": sums_of_q4_k,
    "pairs_of_q4_k": sums_of_q4_k,
    "halves_of_q2_k": sums_of_q4_k,
}
