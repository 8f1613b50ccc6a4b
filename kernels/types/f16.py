"""F16: half floats, 32 at a time. Twin of quants.f16."""

from ..language.compile_time import inline
from ..language.memory import load
from ..language.reshaping import convert
from ..language.vectors import Vec, f32

BLOCK, WEIGHTS = 64, 32
f16x32 = Vec("f", 16, 32)


@inline
def floats(rows, at):
    """32 weights from the byte `at` of rows on, f32 lanes. Twin of quants.f16.floats."""
    return convert(f32, load(f16x32, rows, at))
