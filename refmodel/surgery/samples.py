"""A few numbers of each block, by which it is known when no tensor has kept its bytes."""

from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import TypeAlias

import numpy as np

from .copy_map import block_of
from .values import Stored, decoded, decodes, difference, flat, floats

NEAR = 0.05  # of the norms of two blocks, relative: a rounding to fewer bits, and no other block
NEAR_ROWS = 0.5  # of rows of matrices, of which those of another block have nothing in common
Sample: TypeAlias = Mapping[str, np.ndarray]


def samples(tensors: Mapping[str, Stored], prefix: str) -> dict[int, Sample]:
    """Block -> (name without prefix and number -> values): all vectors, or where a block has none the first row of each matrix."""
    held: dict[int, dict[str, Stored]] = defaultdict(dict)
    for name, t in tensors.items():
        block = block_of(name, prefix)
        if block is not None and decodes(t.type):
            held[block][name.removeprefix(f"{prefix}{block}.")] = t
    return {block: {name: numbers(t) for name, t in taken(parts).items()} for block, parts in held.items()}


def taken(parts: Mapping[str, Stored]) -> Mapping[str, Stored]:
    """The vectors among the tensors of a block; all tensors if there is none."""
    found = {name: t for name, t in parts.items() if len(flat(t.shape)) == 1}
    return found or {name: t for name, t in parts.items() if len(flat(t.shape)) > 1}


def numbers(t: Stored) -> np.ndarray:
    """The values of a vector, or the first row of a matrix [1, I]."""
    if len(flat(t.shape)) == 1:
        return np.concatenate([rows.ravel() for rows in floats(t)])
    return decoded(t, t.data.reshape(prod(t.shape[:-1]), -1)[:1])


def nearness(sample: Sample) -> float:
    """How far apart two samples of one block may be."""
    return NEAR if all(x.ndim == 1 for x in sample.values()) else NEAR_ROWS


def distance(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """The relative distance of all vectors that both have; infinite if they have different ones."""
    if not a or a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    apart = sum(float(np.square(difference(a[name], b[name])).sum()) for name in a)
    size = sum(float(np.square(x.astype(np.float64)).sum()) for x in b.values())
    return (apart / size) ** 0.5 if 0 < size < float("inf") and apart == apart else float("inf")
