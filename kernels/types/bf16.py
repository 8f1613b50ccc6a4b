"""BF16: the upper halves of floats, 32 at a time. Twin of quants.bf16."""

from ..language.compile_time import inline
from ..language.memory import load
from ..language.reshaping import bitcast, convert
from ..language.vectors import Vec, f32, u32

BLOCK, WEIGHTS = 64, 32
u16x32 = Vec("u", 16, 32)


@inline
def floats(rows, at):
    """32 weights from the byte `at` of rows on, f32 lanes. Twin of quants.bf16.floats."""
    return bitcast(f32, convert(u32, load(u16x32, rows, at)) << 16)
