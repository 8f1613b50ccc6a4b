"""`refmodel info`: what a file holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RefmodelError
from ..report.console import err, out
from .options import AsJson, ModelPath, model_of

if TYPE_CHECKING:
    from ..model.model import Model

Audit = Annotated[bool, typer.Option("--audit", help="Look at the numbers too: norms, decays, orders, dead or repeated tensors.")]
Source = Annotated[
    str, typer.Option(help="With --audit: the GGUF or Hugging Face folder that the file was made of, to compare with.")
]


def info(
    model: ModelPath,
    as_json: AsJson = False,
    tensors: Annotated[bool, typer.Option(help="List every tensor.")] = False,
    audit: Audit = False,
    source: Source = "",
) -> None:
    """Show what a file holds: what each tensor is for, the kind of each block, the tokenizer, and what looks wrong."""
    from ..info import summary as held
    from ..info.checks import inconsistencies
    from ..info.computed import facts
    from ..report import info as show
    from ..report.tables import pairs
    from ..surgery.runtimes import not_in_a_copy

    if source and not audit:
        raise RefmodelError("--source is for --audit; add that, or leave it out")
    loaded = model_of(model)
    if audit:
        audited(loaded, source, as_json)
        return
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


def audited(model: "Model", source: str, as_json: bool) -> None:
    """Print what the numbers in a file say of it."""
    from ..info.audit import audit
    from ..info.checks import inconsistencies
    from ..report import info as show
    from ..report.progress import watching

    with watching(err, "looking at") as seen:
        found = audit(model, model_of(source) if source else None, seen)
    lines = inconsistencies(model)
    if as_json:
        out.json({"audit": [vars(finding) for finding in found], "inconsistencies": lines})
        return
    out.print(show.findings(found), markup=False, soft_wrap=True)
    out.print("\n".join(f"! {line}" for line in lines) or "no inconsistencies found", markup=False)
