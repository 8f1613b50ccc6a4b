"""F32: floats, 32 at a time. Twin of quants.f32."""

from ..language.compile_time import inline
from ..language.memory import load
from ..language.vectors import Vec

BLOCK, WEIGHTS = 128, 32
f32x32 = Vec("f", 32, 32)


@inline
def floats(rows, at):
    """32 weights from the byte `at` of rows on, f32 lanes. Twin of quants.f32.floats."""
    return load(f32x32, rows, at)
