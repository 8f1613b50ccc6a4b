"""Remarks about copies that went on living: saved again, quantized, with blocks that change nothing, or cut by accident."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ...model.route import Route
from ..copy_map import Plan, block_of
from ..values import Error, Stored, decodes, floats, word
from .report import Report


def accidents(route: Route, counts: Sequence[int]) -> list[str]:
    """What in a route looks like an accident: no window runs twice, but blocks are moved, single or missing.

    counts  how many of the route's blocks are of each source, one after the other
    """
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    source = [sum(block >= end for end in ends) for block in route.layers]
    layers, out = list(route.layers), []
    if layers[0] not in (0, *ends):
        out.append(f"it begins with block {layers[0]}: is that meant?")
    if layers[-1] + 1 not in ends:
        out.append(f"it ends with block {layers[-1]}, the source with {ends[source[-1]] - 1}: is that meant?")
    for p in range(1, len(layers) - 1):
        before, here, after = layers[p - 1 : p + 2]
        if len(set(source[p - 1 : p + 2])) > 1:
            continue
        if here not in (before + 1, before) and after not in (here + 1, here) and after - before in (1, 2):
            out.append(f"position {p} runs block {here} between blocks {before} and {after}: an accident?")
        if p + 2 < len(layers) and here == after + 1 == before + 2 and layers[p + 2] == here + 1:
            out.append(f"blocks {after} and {here} have changed places at position {p}: an accident?")
    return out


OUTPUTS = {"attn_output", "ffn_down", "o_proj", "down_proj", "ssm_out", "out_proj"}


def identity_blocks(report: Report, plan: Plan, tensors: Mapping[str, Stored]) -> None:
    """Note the blocks that change nothing, because what they add is zero: layers that were inserted to be trained."""
    adds: dict[int, list[bool]] = {}
    for name, t in tensors.items():
        number = block_of(name, plan.prefix)
        if number is not None and OUTPUTS & set(name.split(".")) and name.endswith(".weight"):
            adds.setdefault(number, []).append(not zeros(t))
    for number in sorted(n for n, values in adds.items() if len(values) > 1 and not any(values)):
        report.notes.append(f"block {number} is an identity block: all that it adds is zero")


def zeros(t: Stored) -> bool:
    """Whether every value is zero, of either sign."""
    return not any(rows.any() for rows in floats(t)) if decodes(t.type) else not t.data.any()


def living_on(report: Report, retyped: Mapping[str, Error], tensors: Mapping[str, Stored]) -> str:
    """Note what became of the types of a copy. Returns why it cannot be compared bit for bit with its source; empty if it can."""
    if not retyped:
        return ""
    kinds = Counter(word(tensors[name].type) for name in retyped)
    listed = ", ".join(f"{n} in {kind}" for kind, n in kinds.most_common())
    kept = len(tensors) - len(retyped)
    if all(apart.exact for apart in retyped.values()):
        report.notes.append(f"saved again: {listed}, with the same values; {kept} tensors kept their type")
        return ""
    report.notes.append(f"quantized afterwards: {listed}, within the error of these types; {kept} tensors kept their type")
    return "the copy was quantized afterwards; refmodel diff tells what that changes"
