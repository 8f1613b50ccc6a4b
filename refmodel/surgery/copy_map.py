"""The one map of a copy: which source block is at each of its blocks.

Tensors, per-block metadata, provenance and proof all read it here; nothing derives it a second time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from ..hf.folder import Folder
from ..model.route import Route

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A route as a file has it.

    route   which blocks of the trunk run, in order
    behind  how many blocks follow the trunk (nextn, multi-token prediction); they stay last, in their order
    prefix  the part before a block's number in its tensors' names: `blk.` in a GGUF
    """

    route: Route
    behind: int
    prefix: str

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """The map: block p of the copy is source block blocks[p]."""
        trunk = self.route.n_layer
        return (*self.route.layers, *range(trunk, trunk + self.behind))

    @property
    def n_source(self) -> int:
        """How many blocks the source has, prediction included."""
        return self.route.n_layer + self.behind

    def follow(self, values: Sequence[T]) -> list[T]:
        """A per-block list of the source in the copy's order: new[p] = old[blocks[p]]. It may cover only the trunk."""
        assert len(values) in (self.n_source, self.route.n_layer), "not one value for each block"
        return [values[source] for source in (self.blocks if len(values) == self.n_source else self.route.layers)]

    def origins(self, names: Iterable[str]) -> dict[str, str]:
        """Tensor of the copy -> tensor of the source.

        Tensors of the whole model keep their order; all blocks come where the first block was.
        """
        out: dict[str, str] = {}
        blocks: dict[int, list[str]] = {}
        order: list[str | None] = []
        for name in names:
            number = block_of(name, self.prefix)
            if number is None:
                order.append(name)
            else:
                if not blocks:
                    order.append(None)
                blocks.setdefault(number, []).append(name.removeprefix(f"{self.prefix}{number}"))
        for place in order:
            if place is not None:
                out[place] = place
                continue
            for position, source in enumerate(self.blocks):
                for rest in blocks.get(source, []):
                    out[f"{self.prefix}{position}{rest}"] = f"{self.prefix}{source}{rest}"
        return out


def folder_plan(folder: Folder, route: Route) -> Plan:
    """The plan of a copy of a folder."""
    return Plan(route, folder.behind, folder.prefix)


def block_of(name: str, prefix: str) -> int | None:
    """The number of the block that a tensor belongs to; None for tensors of the whole model."""
    number, dot, _ = name.removeprefix(prefix).partition(".")
    return int(number) if name.startswith(prefix) and dot and number.isascii() and number.isdigit() else None
