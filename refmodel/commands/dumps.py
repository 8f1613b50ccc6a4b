"""What `refmodel diff` needs to compare with another program's dump."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..errors import TraceError
from ..report.console import out

if TYPE_CHECKING:
    from ..compare.other_side import Other

Map = Annotated[Path | None, typer.Option("--map", help="With a dump: a TOML file that says which of its arrays is which tap.")]


def of_model(against: str) -> bool:
    """Whether --against names a model: a GGUF that is not one of llama-results."""
    from ..dumps.results_gguf import holds_results

    return against.endswith(".gguf") and not holds_results(Path(against))


def nothing_compared(against: str, other: "Other", as_json: bool) -> NoReturn:
    """Say that nothing was compared, with --json on standard output too. TraceError, always."""
    from ..report.diff import nothing_json

    if as_json:
        out.json(nothing_json(other))
    raise TraceError(
        f"--against {against}: has no tensor of a name that a pass of this model has; nothing was compared; record "
        "it without --filter, or rename its tensors as `refmodel trace` names them"
        + "".join(f" ({remark.words})" for remark in other.remarks[:1])
    )
