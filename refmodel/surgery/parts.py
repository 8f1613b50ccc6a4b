"""A tensor that is a part of another one, or has more: rows, columns or experts, as pruning and added tokens leave them."""

import hashlib
from math import prod

import numpy as np

from .values import Stored, decodes, flat, floats

MOST = 1 << 27  # values that are held at once
AXES = {1: ("values",), 2: ("rows", "columns"), 3: ("experts", "rows", "columns")}


def part_of(copy: Stored, source: Stored, name: str) -> str:
    """Which part of a tensor another one is, in words; empty if it is none, or has another length along more than one axis."""
    a, b = flat(copy.shape), flat(source.shape)
    other = [axis for axis, (m, n) in enumerate(zip(a, b, strict=False)) if m != n]
    if len(a) != len(b) or len(other) != 1 or len(a) not in AXES or not (decodes(copy.type) and decodes(source.type)):
        return ""
    axis = other[0]
    if max(prod(a), prod(b)) > MOST:
        return ""
    ours, theirs = slices(copy, a, axis), slices(source, b, axis)
    common, what = len(set(ours) & set(theirs)), AXES[len(a)][axis]
    if a[axis] < b[axis] and set(ours) <= set(theirs):
        first = next((i for i, one in enumerate(ours) if one != theirs[i]), len(ours))
        return f"{a[axis]} of the {b[axis]} {what} of {name}" + (f", the first {a[axis]}" if first == len(ours) else "")
    if a[axis] > b[axis] and common == len(set(theirs)):
        return f"the {b[axis]} {what} of {name} and {a[axis] - b[axis]} more"
    return f"{common} of its {a[axis]} {what} are some of the {b[axis]} of {name}" if common else ""


def slices(t: Stored, shape: tuple[int, ...], axis: int) -> list[bytes]:
    """A digest of each slice along an axis, by values."""
    x = np.moveaxis(np.concatenate(list(floats(t))).reshape(shape), axis, 0)
    return [hashlib.sha256(np.ascontiguousarray(one).data).digest() for one in x]
