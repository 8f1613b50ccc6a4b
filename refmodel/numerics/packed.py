"""Products of packed rows with tokens that are rounded to 8 bits: which kernel computes which path."""

from functools import cache

from ..arrays import F32, Matrix
from ..kernels.language.matrix_registers import TARGET_HAS_THEM
from ..kernels.packed.product import product
from ..machine import matrix_registers

FEW = 4  # tokens that are multiplied one by one
MANY, ROWS = 24, 32  # tokens and rows of a product that is worth matrix registers: those multiply 32 by 32
# path -> the way for few tokens, and for many; all others go in the order of vec_dot
ONE_NUMBER = {
    "super_blocks": ("rows_as_lanes", "panels"),
    "whole_blocks": ("rows_as_lanes", "panels"),
    "whole_super_blocks": ("rows_as_lanes", "panels"),
    "whole_blocks_and_minima": ("rows_as_lanes", "panels"),
    "whole_super_blocks_and_minima": ("rows_as_lanes", "panels"),
    "sums_of_q4_k": ("rows_as_lanes", "panels"),
    "pairs_of_q4_k": ("panels", "panels"),
    "halves_of_q2_k": ("panels", "panels"),
}
# paths that matrix registers can take
ONE_SUM = {"super_blocks", "whole_blocks", "whole_super_blocks", "whole_blocks_and_minima", "whole_super_blocks_and_minima"}


@cache
def matrices() -> bool:
    """Whether there are matrix registers, and this process may use them."""
    return TARGET_HAS_THEM and matrix_registers.granted()


def way(path: str, O: int, T: int) -> str:
    """The way of a product of O rows and T tokens. All ways of a path have the same bits."""
    if T > MANY and O >= ROWS and path in ONE_SUM and matrices():
        return "matrices"
    return ONE_NUMBER.get(path, ("vec_dot", "vec_dot"))[T > FEW]


def multiply(w: Matrix, path: str, x: F32, out: F32) -> None:
    """out [T, O] = rows of w times the tokens x [T, I], by the path of that name (ops.ggml_product) and so with its bits."""
    product(way(path, w.shape[0], len(x)), w.type.name, path, w.rows, x, out)
