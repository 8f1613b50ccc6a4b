"""Where a run is wrong, in words: before the first block, in which blocks, at which operation, at which tokens."""

import re
from collections.abc import Sequence
from typing import Any

from ..errors import OracleError
from ..llamacpp.nodes import table
from ..model.model import Model
from .other_side import Other
from .rows import LogitRow
from .verdict import Verdict, stem

NUMBER = re.compile(r".+?-(\d+)(?:#\d+)?(?:@\d+)?")
ENDS = ("result_", "norm", "h_nextn")


def block_of(tap: str) -> int | None:
    """The position of a tap's block; None outside of blocks."""
    match = NUMBER.fullmatch(tap)
    return int(match[1]) if match else None


def wrong_blocks(verdict: Verdict) -> list[int]:
    """The positions at which something is wrong, in order."""
    found = {block_of(row.name) for row in verdict.rows.values() if not row.within}
    return sorted(block for block in found if block is not None)


def first(verdict: Verdict, model: Model, other: Other) -> dict[str, Any] | None:
    """The first wrong tap for --json: `tap`, `block` (null outside of blocks), `operation` (ggml's) and `where` in words.

    The operation is null where the dump has only the outputs of blocks: then any of a block's operations may be wrong.
    """
    if verdict.first is None:
        return None
    tap = verdict.first.name
    return {
        "tap": tap,
        "block": block_of(tap),
        "operation": operation(tap, model, other),
        "where": in_words(verdict, model, other),
    }


def operation(tap: str, model: Model, other: Other) -> str | None:
    """ggml's operation that makes a tap; None if that is not known, or if only outputs of blocks are there."""
    if tap in other.operations:
        return other.operations[tap]
    block = block_of(tap)
    if block is not None and not any(
        block_of(name) == block and name.partition("@")[0] != tap.partition("@")[0] for name in other.taps
    ):
        return None
    try:
        entries = [entry for section in table(model.architecture).sections.values() for entry in section]
    except OracleError:
        return None
    wanted = stem(tap)
    return next((entry.op for entry in entries if entry.tap and entry.tap.replace("-N", "") == wanted), None)


def in_words(verdict: Verdict, model: Model, other: Other) -> str:
    """Where a run is wrong, as a phrase: `before block 0`, `in exactly the sliding blocks, 0 to 4`, `in block 3 of 12`."""
    if verdict.first is None:
        return "nowhere"
    tap, blocks = verdict.first.name, wrong_blocks(verdict)
    if block_of(tap) is None:
        return "after the last block" if tap.startswith(ENDS) else "before block 0"
    layers = model.route(other.route).layers
    compared = sorted({block for name in verdict.rows if (block := block_of(name)) is not None})
    for kind in dict.fromkeys(model.kinds):
        alike = [p for p in compared if p < len(layers) and model.kinds[layers[p]] == kind]
        if len(set(model.kinds)) > 1 and blocks == alike and len(alike) > 1:
            return f"in exactly the {kind} blocks, {listed(blocks)}"
    if blocks == compared and len(blocks) > 1:
        return "in every block"
    many = "block" if len(blocks) == 1 else "blocks"
    return f"in {many} {listed(blocks)} of {len(layers)}"


def listed(blocks: Sequence[int]) -> str:
    """Numbers in words, at most eight of them."""
    return ", ".join(map(str, blocks[:8])) + (", ..." if len(blocks) > 8 else "")


def by_position(rows: Sequence[LogitRow]) -> list[str]:
    """A line with the error of the logits along the tokens, if there are several: errors of RoPE grow with the position."""
    if len(rows) < 2:
        return []
    chosen = rows if len(rows) <= 8 else [rows[i * (len(rows) - 1) // 7] for i in range(8)]
    return ["error of the logits by token: " + ", ".join(f"{row.token}: {row.nmse:.0e}" for row in chosen)]
