"""Products of packed rows with tokens that are rounded to 8 bits: which kernel computes which path."""

from ..arrays import F32, Matrix
from ..kernels.packed.product import product

FEW = 4  # tokens that are multiplied one by one
# path -> the way for few tokens, and for many; all others go in the order of vec_dot
ONE_NUMBER = {
    "super_blocks": ("rows_as_lanes", "panels"),
    "whole_blocks": ("rows_as_lanes", "panels"),
    "whole_super_blocks": ("rows_as_lanes", "panels"),
    "sums_of_q4_k": ("rows_as_lanes", "panels"),
    "pairs_of_q4_k": ("panels", "panels"),
    "halves_of_q2_k": ("panels", "panels"),
}


def multiply(w: Matrix, path: str, x: F32, out: F32) -> None:
    """out [T, O] = rows of w times the tokens x [T, I], by the path of that name (ops.ggml_product) and so with its bits."""
    product(ONE_NUMBER.get(path, ("vec_dot", "vec_dot"))[len(x) > FEW], w.type.name, path, w.rows, x, out)
