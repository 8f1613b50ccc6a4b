"""Blocks of a copy that was quantized afterwards: known by the tensors that kept their type, if the others are near enough."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from .copy_map import block_of
from .recover import Recovery
from .values import Stored, decodes, error, flat, word


def by_types(found: Recovery, copy: Mapping[str, Stored], source: Mapping[str, Stored], prefixes: tuple[str, str]) -> Recovery:
    """A recovery in which a block is its nearest one if all its other tensors are that block's within the error of another type."""
    ours, theirs = (names_by_block(tensors, prefix) for tensors, prefix in zip((copy, source), prefixes, strict=True))
    matches = []
    for match in found.matches:
        near = match.nearest
        if match.sources or near is None or ours[match.block].keys() != theirs.get(near, {}).keys():
            matches.append(match)
            continue
        pairs = [(copy[name], source[theirs[near][part]]) for part, name in ours[match.block].items()]
        other = [(a, b) for a, b in pairs if word(a.type) != word(b.type)]
        whole = match.common + len(other) == match.total and all(within(a, b) for a, b in other)
        matches.append(replace(match, close=len(other)) if whole else match)
    return replace(found, matches=matches)


def within(a: Stored, b: Stored) -> bool:
    """Whether the values of `a` are those of `b` within the error of its type."""
    return flat(a.shape) == flat(b.shape) and decodes(a.type) and decodes(b.type) and error(a, b).within(a.type)


def names_by_block(tensors: Mapping[str, Stored], prefix: str) -> dict[int, dict[str, str]]:
    """Block -> (name without prefix and number -> name)."""
    out: dict[int, dict[str, str]] = defaultdict(dict)
    for name in tensors:
        if (block := block_of(name, prefix)) is not None:
            out[block][name.removeprefix(f"{prefix}{block}.")] = name
    return dict(out)
