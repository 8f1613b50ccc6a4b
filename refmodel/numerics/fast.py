"""Numerics `fast`: float32, and for packed weights tokens that are rounded to 8 bits; a cache of half floats."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arrays import F, Matrix
from ..ops.ggml_product import PATHS, plan
from . import packed, plain
from .plain import REFERENCE


def linear(w: Matrix, x: F) -> F:
    """The product of rounded tokens with the file's own blocks; with floats, and types without such a product, the reference's.

    Tokens are summed up block by block (path `super_blocks` of ops.ggml_product); but a few of them, with types of small blocks,
    as llama.cpp does it for one, which is faster where a processor has no instruction for four products of bytes. So with these
    types it depends on a call's number of tokens which bits they get.
    """
    if w.type not in PATHS:
        return plain.linear(w, x)
    out = np.empty((len(x), w.shape[0]), np.float32)
    as_llama = len(x) <= packed.FEW and PATHS[w.type].partner != "q8_k"
    packed.multiply(w, path_of_one(w.type, w.shape[0]) if as_llama else "super_blocks", x, out)
    return out


@cache
def path_of_one(kind: Q, O: int) -> str:
    """llama.cpp's path for O rows of a type and a single token."""
    return plan(kind, O, 1, repack=True, tiled=True, panels=False)[0].path


def store(x: F) -> F:
    """The cache is one of half floats."""
    return x.astype(np.float16)


FAST = replace(REFERENCE, name="fast", linear=linear, experts=partial(plain.by_expert, linear), store=store)
