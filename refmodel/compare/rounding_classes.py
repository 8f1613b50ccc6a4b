"""The ways in which programs round that are told apart: what each keeps, and with how many bits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..arrays import F, Matrix
from ..forward.numerics import Numerics
from ..llamacpp.builds import JUDGE
from ..llamacpp.profile import DEFAULT
from ..numerics import ORACLE, REFERENCE, ladder
from ..ops.experts import by_expert
from ..ops.ggml_paths import PATHS
from ..ops.ieee import half
from .allowances import OF_CLASSES, OF_FLOATS
from .verdict import in_float32, twin

HALF_ULP = {53: 0.0, 24: 0.0, 11: 2.0**-11, 8: 2.0**-8}  # by the significant bits of a format; float32 needs no perturbation


@dataclass(frozen=True)
class Rounding:
    """One class of rounding.

    name    for reports
    exact   the numerics that the other side is compared under
    rounds  the numerics that rounds as the class does
    bits    significant bits of what it keeps; 24 for float32
    blocks  only the outputs of blocks are rounded to those bits, not every intermediate
    factor  how many times the measured rounding is allowed
    """

    name: str
    exact: Numerics
    rounds: Numerics
    bits: int = 24
    blocks: bool = False
    factor: float = OF_CLASSES

    def half_ulp(self, tap: str) -> float:
        """The largest relative error that rounding makes at a tap."""
        return 0.0 if self.blocks and not tap.startswith("l_out-") else HALF_ULP[self.bits]


def classes(arithmetic: Numerics, gelu: bool) -> Iterator[Rounding]:
    """The classes of rounding, the finest first: what the dump says of itself (`arithmetic`), float32, then coarser ones.

    gelu  whether the architecture has a GELU, which a program may take from a table of half floats, as llama.cpp does
    """
    if arithmetic is not REFERENCE:
        yield Rounding(f"numerics {arithmetic.name}", arithmetic, twin(arithmetic), factor=OF_FLOATS)
    yield Rounding("float32", REFERENCE, ORACLE, factor=OF_FLOATS)
    for words, numerics in halves(gelu):
        yield Rounding(words, REFERENCE, numerics)
    looked_up = table_of_gelu()
    f16 = replace(REFERENCE, store=half)
    yield Rounding("f16 between blocks", REFERENCE, REFERENCE, 11, blocks=True)
    yield Rounding("f16 activations", REFERENCE, f16, 11)
    eight = replace(eight_bits(ladder(DEFAULT, JUDGE)["activations"]), geglu=looked_up)
    yield Rounding("8-bit activations", ORACLE, eight)
    yield Rounding(
        "8-bit activations with an f16 cache", ORACLE, replace(eight, store=lambda x: x.astype(np.float16).astype(x.dtype))
    )
    yield Rounding("bf16 between blocks", REFERENCE, REFERENCE, 8, blocks=True)
    yield Rounding("bf16 activations", REFERENCE, replace(REFERENCE, store=bfloat_of), 8)
    yield Rounding("8-bit activations, one scale a token", ORACLE, eight_bits(ORACLE, whole_rows=True))


def halves(gelu: bool) -> Iterator[tuple[str, Numerics]]:
    """What computes in float32 with half floats in one place, as llama.cpp does on files of floats: (in words, the numerics).

    gelu  whether the architecture has a GELU
    """
    cached = replace(REFERENCE, store=half)
    yield "float32 with an f16 cache", cached
    if gelu:
        yield "float32 with an f16 table of GELU", replace(REFERENCE, geglu=table_of_gelu())
        yield "float32 with an f16 cache and an f16 table of GELU", replace(cached, geglu=table_of_gelu())


def table_of_gelu() -> Callable[[F, F], F]:
    """gelu(gate) * up, any shape, with llama.cpp's table of half floats."""
    return partial(in_float32, ladder(DEFAULT, JUDGE)["order"].geglu)


def bfloat_of(x: F) -> F:
    """Keys and values, any shape, as bfloat16 has them."""
    return through(x, 8)


def through(x: F, bits: int) -> F:
    """x rounded to that many significant bits, in its own dtype; the range of exponents is not limited."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(x.dtype)


def eight_bits(num: Numerics, whole_rows: bool = False) -> Numerics:
    """A numerics whose products round their tokens to 8 bits, also where the matrix is of floats.

    whole_rows  one scale for each token; else as llama.cpp does for packed types, and in blocks of 32 for floats
    """

    def linear(w: Matrix, x: F) -> F:
        if not whole_rows and w.type in PATHS:
            return num.linear(w, x)
        block = 32 if not whole_rows and x.shape[-1] % 32 == 0 else x.shape[-1]
        parts = x.reshape(-1, block)
        scale = np.abs(parts).max(axis=1, keepdims=True) / 127
        rounded = np.round(parts / np.where(scale, scale, 1)) * scale
        return ORACLE.linear(w, rounded.reshape(x.shape).astype(x.dtype))

    return replace(num, linear=linear, experts=partial(by_expert, linear))
