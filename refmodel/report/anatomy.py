"""The anatomy of a model, as a table and as JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .tables import plain_table

if TYPE_CHECKING:
    from ..sweep.anatomy import Anatomy


def anatomy(console: Console, found: "Anatomy") -> None:
    """Print what each block does, and the windows that turn the stream least."""
    table = plain_table("block", "kind", "norm", "influence", "rank", "chance", "entropy", "state kept a token")
    for one in found.blocks:
        kept = f"{one.decays[0]:.3f} to {one.decays[-1]:.3f}" if one.decays else ""
        entropy = "" if one.entropy is None else f"{one.entropy:.2f}"
        table.add_row(
            str(one.block), one.kind, f"{one.norm:.1f}", f"{one.influence:.4f}", str(one.rank), f"{one.chance:.3f}", entropy, kept
        )
    console.print(table)
    console.print(f"rank and chance are those of {found.token!r}, which the model chooses after the text, seen through the head")
    for size in (1, 2, 4):
        if size < len(found.blocks):
            angles = {i: found.angles[i, i + size] for i in range(len(found.blocks) - size + 1)}
            least = min(angles, key=lambda i: angles[i])
            console.print(f"windows of {size}: blocks:{least},{least + size} turns it least, {angles[least]:.3f} half turns")


def anatomy_json(found: "Anatomy") -> dict[str, Any]:
    """The same for --json."""
    return {"blocks": [asdict(one) for one in found.blocks], "angles": found.angles.tolist(), "token": found.token}
