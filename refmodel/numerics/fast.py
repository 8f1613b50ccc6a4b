"""Numerics `fast`: float32, and for packed weights tokens that are rounded to 8 bits; a cache of half floats."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arrays import F, Matrix
from ..llamacpp.builds import AVX2
from ..ops.experts import by_expert
from ..ops.ggml_paths import PATHS, plan
from . import packed
from . import reference as plain
from .reference import REFERENCE

# types of which even a few tokens are faster block by block: llama.cpp's sums need more instructions than memory leaves time for
BY_BLOCKS = {Q.Q2_K, Q.Q3_K, Q.IQ4_XS}


def linear(w: Matrix, x: F) -> F:
    """The product of tokens x [T, I], rounded to 8 bits, with the file's own blocks w [O, I]: float32 [T, O].

    For floats, and types without such a product, it is the reference's. Many tokens are summed block by block (path `super_blocks`
    of ops.ggml_product), a few as llama.cpp does it for one, but for types BY_BLOCKS. So the bits depend on T.
    """
    if w.type not in PATHS:
        return plain.linear(w, x)
    out = np.empty((len(x), w.shape[0]), np.float32)
    by_blocks = len(x) > packed.FEW or w.type in BY_BLOCKS
    packed.multiply(w, "super_blocks" if by_blocks else path_of_one(w.type, w.shape[0]), x, out)
    return out


def linear_by_token(w: Matrix, x: F) -> F:
    """`linear` for batches: any number of tokens is summed block by block, so that the bits of a token are its own."""
    if w.type not in PATHS:
        return plain.linear(w, x)
    out = np.empty((len(x), w.shape[0]), np.float32)
    packed.multiply(w, "super_blocks", x, out)
    return out


@cache
def path_of_one(kind: Q, O: int) -> str:
    """The path by which llama.cpp multiplies O rows of a type with a single token."""
    return plan(kind, O, 1, AVX2.repacked, tiled=True, panels=False, amx=())[0].path


def store(x: F) -> F:
    """Keys and values, any shape, as half floats."""
    return x.astype(np.float16)


FAST = replace(
    REFERENCE, name="fast", by_token=False, few=packed.FEW, linear=linear, experts=partial(by_expert, linear), store=store
)
