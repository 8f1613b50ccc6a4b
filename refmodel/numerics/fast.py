"""Numerics `fast`: float32, and for packed weights tokens that are rounded to 8 bits, in whatever order of sums is fastest;
a cache of half floats."""

from dataclasses import replace
from functools import partial

import numpy as np

from ..arrays import F, Matrix
from ..ops.ggml_product import PATHS
from . import packed, plain
from .plain import REFERENCE


def linear(w: Matrix, x: F) -> F:
    """The product of rounded tokens with the file's own blocks; with floats, and types without such a product, the reference's.

    A token is rounded as llama.cpp rounds it for this type, and summed up block by block (path `super_blocks` of
    ops.ggml_product), the same for one token as for many.
    """
    if w.type not in PATHS:
        return plain.linear(w, x)
    out = np.empty((len(x), w.shape[0]), np.float32)
    packed.multiply(w, "super_blocks", x, out)
    return out


def store(x: F) -> F:
    """The cache is one of half floats."""
    return x.astype(np.float16)


FAST = replace(REFERENCE, name="fast", linear=linear, experts=partial(plain.by_expert, linear), store=store)
