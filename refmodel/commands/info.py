"""`refmodel info`: what a file holds."""

from typing import Annotated

import typer

from ..report.console import out
from .options import AsJson, ModelPath, model_of


def info(
    model: ModelPath, as_json: AsJson = False, tensors: Annotated[bool, typer.Option(help="List every tensor.")] = False
) -> None:
    """Show what a file holds: what each tensor is for, the kind of each block, the tokenizer, and what looks wrong."""
    from ..info import summary as held
    from ..info.checks import inconsistencies
    from ..info.computed import facts
    from ..report import info as show
    from ..report.tables import pairs
    from ..surgery.runtimes import not_in_a_copy

    loaded = model_of(model)
    summary, kinds, layers, findings = (
        held.summary(loaded),
        held.kind_table(loaded),
        held.layer_table(loaded),
        inconsistencies(loaded),
    )
    lost = not_in_a_copy(loaded)
    if as_json:
        how = loaded.arch.FACTS.kinds
        computed = facts(loaded) | {"kinds_from": held.kinds_from(loaded, how) if how else None, "not_in_a_copy": lost}
        tables = {"tensors": [vars(row) for row in kinds], "layers": [vars(row) for row in layers]}
        out.json({"summary": summary, "facts": computed, **tables, "inconsistencies": findings})
        return
    out.print(pairs(summary | ({"a copy": "; ".join(lost)} if lost else {})))
    out.print(show.kinds(kinds))
    out.print(show.layers(layers, tensors))
    out.print("\n".join(f"! {line}" for line in findings) or "no inconsistencies found", markup=False)
