"""Products of packed rows with tokens that are rounded to 8 bits: which kernel computes which path."""

from functools import cache

from ..arrays import F32, Matrix
from ..kernels.language.matrix_registers import TARGET_HAS_THEM
from ..kernels.packed.product import product
from ..machine import matrix_registers

FEW = 4  # tokens up to which two share an unpacked block, and no more
MANY, ROWS = 24, 32  # tokens and rows of a product that is worth matrix registers: those multiply 32 by 32
LANES, BLOCKS = ("rows_as_lanes", "pairs_as_lanes", "panels"), ("panels", "panels", "panels")
# path -> the way for one token, for a few, and for more
WAYS = {
    "super_blocks": LANES,
    "whole_blocks": LANES,
    "whole_super_blocks": LANES,
    "whole_blocks_and_minima": LANES,
    "whole_super_blocks_and_minima": LANES,
    "sums_of_q4_k": LANES,
    "pairs_of_q4_k": BLOCKS,
    "halves_of_q2_k": BLOCKS,
}
OTHERS = ("vec_dot", "pairs_of_vec_dot", "pairs_of_vec_dot")
ONE_SUM = {path for path in WAYS if WAYS[path] == LANES} - {"sums_of_q4_k"}  # paths that matrix registers can take


@cache
def matrices() -> bool:
    """Whether there are matrix registers, and this process may use them."""
    return TARGET_HAS_THEM and matrix_registers.granted()


def way(path: str, O: int, T: int) -> str:
    """The way of a product of O rows and T tokens. All ways of a path have the same bits."""
    if T > MANY and O >= ROWS and path in ONE_SUM and matrices():
        return "matrices"
    return WAYS.get(path, OTHERS)[(T > 1) + (T > FEW)]


def multiply(w: Matrix, path: str, x: F32, out: F32) -> None:
    """out [T, O] = rows of w times the tokens x [T, I], by the path of that name (ops.ggml_product) and so with its bits."""
    product(way(path, w.shape[0], len(x)), w.type.name, path, w.rows, x, out)
