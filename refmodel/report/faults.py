"""The fault library in words: a table, one fault wholly, JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .tables import pairs, plain_table

if TYPE_CHECKING:
    from ..faults.fault import Fault

Claims = Mapping[str, Sequence[str]]
"""A fault's name -> the architectures for which it makes sense."""


def listed(faults: "Sequence[Fault]", claims: Claims) -> Table:
    """A table of faults: class, name, what goes wrong, and in how many architectures."""
    table = plain_table("class", "name", "what goes wrong", "architectures")
    for i, column in enumerate(table.columns):
        column.justify, column.no_wrap = "right" if i == 3 else "left", i != 2
    for i, fault in enumerate(faults):
        if i and fault.family != faults[i - 1].family:
            table.add_section()
        number = fault.id if fault.id != fault.name else ""
        table.add_row(number, fault.name, fault.says, str(len(claims[fault.name])))
    return table


def counted(faults: "Sequence[Fault]") -> str:
    """How many faults and classes there are."""
    classes = {fault.id for fault in faults if fault.id != fault.name}
    return f"{len(faults)} faults: forms of {len(classes)} classes that happened, and {sum(f.id == f.name for f in faults)} more"


def whole(fault: "Fault", architectures: Sequence[str]) -> Table:
    """Everything about one fault."""
    number = f"{fault.id}, " if fault.id != fault.name else ""
    return pairs(
        {
            "fault": f"{fault.name} ({number}{fault.family})",
            "what goes wrong": fault.says,
            "seen": fault.evidence,
            "what to do": fault.fix,
            "right": fault.right,
            "changes first": ", ".join(fault.at),
            "shows in": fault.when + (", but not in the logits" if fault.placebo else ""),
            "tensors": ", ".join(fault.tensors),
            "keys": ", ".join(fault.keys),
            "architectures": ", ".join(architectures),
        }
    )


def fault_json(fault: "Fault", architectures: Sequence[str]) -> dict[str, Any]:
    """A fault as JSON has it: all fields but what it does, and its architectures."""
    own = {field.name: getattr(fault, field.name) for field in fields(fault) if field.name != "change"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()} | {
        "architectures": list(architectures)
    }
