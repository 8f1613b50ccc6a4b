"""`refmodel faults`: the library of faults that runtimes really had."""

from typing import Annotated

import typer

from ..machine.threads import use
from ..report.console import out
from .options import AsJson


def faults(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A fault, or a class such as F20: show it wholly.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the faults that runtimes really had, to be run on purpose: what goes wrong, where, and what to do."""
    use(None)
    from ..faults import library
    from ..report import faults as show

    found = library.named(name) if name else list(library.FAULTS.values())
    claims = {fault.name: library.architectures(fault.name) for fault in found}
    if as_json:
        out.json([show.fault_json(fault, claims[fault.name]) for fault in found])
    elif name:
        for fault in found:
            out.print(show.whole(fault, claims[fault.name]))
    else:
        out.print(show.listed(found, claims))
        out.print(show.counted(found))
