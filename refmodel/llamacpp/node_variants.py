"""The table of llama.cpp's nodes for a file that stores matrices otherwise than each alone: with a factor, or several as one.

Source: llama.cpp src/llama-graph.cpp, build_lora_mm, build_ffn, build_qkv, build_moe_ffn. The old ssm_in of qwen3next is not
here: its nodes stand in that architecture's own table.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from .nodes import Entry, Table

# The products of attention's input, and their sums with a bias, by the taps that they are compared with.
PRODUCT = re.compile(r"(mtp_)?[QKV]cur(_full)?-N(#bias)?")
# Products of no matrix, or of one whose factor no graph reads.
UNSCALED = ("kq", "ffn_moe_logits", "shared_expert", "linear_attn_mixed_qkvz")
FROM_ONE = "queries, keys and values, one behind another"


def as_stored(table: Table, tensors: Collection[str]) -> Table:
    """An architecture's table, adapted to a file that has tensors of these names."""
    attention = [name.removesuffix("attn_output.weight") for name in tensors if name.endswith(".attn_output.weight")]
    if any(f"{block}attn_qkv.weight" in tensors for block in attention):  # that of a delta block is one matrix
        table = replace(table, sections=dict(with_variants(table.sections.items())))
    for end, lines in ((".ffn_gate_up_exps.weight", of_gate_and_up), (".scale", with_scale)):
        if any(name.endswith(end) for name in tensors):
            table = replace(table, sections={name: rewritten(section, lines) for name, section in table.sections.items()})
    return table


def rewritten(section: Sequence[Entry], lines: Callable[[Entry], Iterable[Entry]]) -> tuple[Entry, ...]:
    """A section with each line replaced by `lines` of it; a line that may replace others then replaces all that these became."""
    out: list[Entry] = []
    starts = [0]
    for number, entry in enumerate(section):
        before = len(out) - starts[number - entry.instead]
        out += [replace(new, instead=before + i) if entry.instead and new.instead else new for i, new in enumerate(lines(entry))]
        starts.append(len(out))
    return tuple(out)


def with_scale(entry: Entry) -> Iterator[Entry]:
    """The lines of a product whose matrix may have a `.scale`: one node more, its product with the factor.

    The name goes to that node (build_lora_mm), or both have one (build_ffn); the matrix decides which.
    """
    left, stem = "the product before its scale or bias", entry.name.removesuffix("-N")
    if entry.op not in ("MUL_MAT", "MUL_MAT_ID") or stem.startswith(UNSCALED):
        yield entry
    elif entry.instead:  # the name goes to the sum with a bias
        yield replace(entry, tap="", reason=left, optional=True, instead=0)
        yield replace(entry, op="MUL", optional=True, instead=0)
    elif entry.name == "node":
        yield replace(entry, tap="", reason=entry.reason or left)
        yield replace(entry, op="MUL", optional=True)
    elif stem in ("ffn_gate", "ffn_up"):
        yield replace(entry, tap="", reason=left)
        yield replace(entry, op="MUL", name=f"{stem}_s-N", optional=True)
    else:
        yield replace(entry, optional=True)
        yield Entry(entry.op, "node", "", left, optional=True)
        if entry.op == "MUL_MAT_ID":
            factors = f"blk.N.{stem.replace('moe_', '')}_exps.scale (reshaped)"
            for op, name in (("RESHAPE", factors), ("REPEAT", "node"), ("GET_ROWS", "node")):
                yield Entry(op, name, "", "the experts' scales", optional=True)
            yield replace(entry, op="MUL", name=f"{stem}_scaled-N", optional=True)
        yield replace(entry, op="MUL", optional=True)


def of_gate_and_up(entry: Entry) -> Iterator[Entry]:
    """The lines of the experts' gate and up: either may be a view of one product, which then comes first."""
    if entry.tap == "ffn_moe_gate-N":
        yield Entry("MUL_MAT_ID", "ffn_moe_gate_up-N", "", "gates and what they multiply, one behind the other", optional=True)
    yield entry
    if entry.op == "MUL_MAT_ID" and entry.tap in ("ffn_moe_gate-N", "ffn_moe_up-N"):
        yield replace(entry, op="VIEW", instead=1)


def with_variants(sections: Iterable[tuple[str, tuple[Entry, ...]]]) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """All sections, and after each with attention its forms where queries, keys and values are one product, with or without a bias.

    So each block of a file may be stored in its own way.
    """
    for name, section in sections:
        yield name, section
        if any(is_product(entry) for entry in section):
            yield f"{name}, attn_qkv", from_one(section, "")
            yield f"{name}, attn_qkv with a bias", from_one(section, "#bias")


def is_product(entry: Entry) -> bool:
    """Whether a line is a product for queries, keys or values, or its sum with a bias."""
    return entry.op in ("MUL_MAT", "ADD") and bool(PRODUCT.fullmatch(entry.tap))


def from_one(section: Sequence[Entry], bias: str) -> tuple[Entry, ...]:
    """A section with attention, where one product comes first; `bias` is #bias if its sum with a bias follows, else empty."""
    first = next(line for line, entry in enumerate(section) if is_product(entry))
    lines = copies if "_full" in section[first].tap else views
    one = [Entry("MUL_MAT", "wqkv-N", "", FROM_ONE)]
    if bias:
        one += 2 * [Entry("CONCAT", "node", "", "the biases, where a file has one for each", optional=True)]
        one += [Entry("ADD", "wqkv_b-N", "", FROM_ONE)]
    return *section[:first], *one, *(new for entry in section[first:] for new in lines(entry, bias))


def views(entry: Entry, bias: str) -> Iterator[Entry]:
    """The lines of one line where queries, keys and values are views by heads. The cache of transposed values reads a copy."""
    if entry.op == "RESHAPE" and PRODUCT.fullmatch(entry.name):
        yield replace(entry, op="VIEW", tap=entry.name + bias, reason="")
    elif entry.name.startswith("Vcur-N (reshaped)"):
        op = "CONT" if entry.name == "Vcur-N (reshaped)" else entry.op
        yield replace(entry, op=op, name=entry.name.replace("(reshaped)", "(cont)", 1))
    elif not is_product(entry):
        yield entry


def copies(entry: Entry, bias: str) -> Iterator[Entry]:
    """The lines of one line where queries with their gates, keys and values are copies of views."""
    view = f"{'wqkv_b' if bias else 'wqkv'}-N (view)"
    if is_product(entry) and entry.op == "MUL_MAT" and not entry.instead:
        yield Entry("VIEW", view, "", f"same numbers as {entry.tap}{bias}")
        yield replace(entry, op="CONT", name=f"{view} (cont)" if entry.name == "node" else entry.name, tap=entry.tap + bias)
    elif entry.name == "(reshaped)":
        yield replace(entry, name=f"{view} (cont) (reshaped)")
    elif not is_product(entry):
        yield entry
