"""`refmodel info --audit`: what the numbers in a file say of it, without running it."""

from collections.abc import Callable, Iterator

from ..model.model import Model
from .audit_source import against_source
from .audit_tensors import coarse_gates, copies, query_gates, repeated_rows, values
from .audit_vectors import decays, norms
from .finding import Finding

CHECKS: tuple[Callable[[Model], Iterator[Finding]], ...] = (
    values,
    norms,
    decays,
    coarse_gates,
    query_gates,
    repeated_rows,
    copies,
)


def audit(model: Model, source: Model | None, seen: Callable[[str], None]) -> list[Finding]:
    """Everything in a file's numbers that a sound file does not have. Empty for a sound file.

    source  the same model in a second file, to compare with; None for no such
    seen    called with what is looked at

    RefmodelError if the second file is of another model.
    """
    found = list[Finding]()
    for check in CHECKS:
        seen(check.__name__.replace("_", " "))
        found += check(model)
    return found + (list(against_source(model, source, seen)) if source else [])
