"""`refmodel route`: a route explained, or found in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RefmodelError
from ..report import surgery as show
from ..report.console import err, out
from .options import SHIPPED, AsJson, file_of


def route(
    text: Annotated[str, typer.Argument(metavar="[ROUTE]", help="blocks:i,j · layers:0..14,12,13 · (i,j)")] = "",
    layers: Annotated[int, typer.Option("--layers", min=0, help="How many blocks the source model has.", metavar="N")] = 0,
    model: Annotated[
        str, typer.Option(help=f"The source model, or {SHIPPED}: also show which runtimes can run a copy, and its cost.")
    ] = "",
    recover: Annotated[Path | None, typer.Option(help="A copy: find its route from its tensors' hashes.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help=f"With --recover: the model it was made from, or {SHIPPED}; several if it has blocks of several."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a route: its map, its seams, its cost and which runtimes can run it. Or find the route of a file."""
    if recover:
        if not source or text or layers or model:
            raise RefmodelError("--recover COPY needs --source MODEL, and neither a route nor --layers nor --model")
        found(file_of(str(recover)), [file_of(one) for one in source], as_json)
        return
    if not text or bool(layers) == bool(model):
        raise RefmodelError("give a route and either --layers N or --model MODEL; or --recover COPY --source MODEL")
    from ..model.route import Route

    if model:
        from ..surgery.verify import foreseen

        described = foreseen(file_of(model), text)
    else:
        described = Route.parse(text, layers).describe()
    if as_json:
        out.json(described)
    else:
        show.route(out, described)
        show.foreseen(out, described)


def found(copy: Path, sources: Sequence[Path], as_json: bool) -> None:
    """Print the route of a copy. Exit status 1 if a block is not whole, or the file claims another route."""
    from ..surgery.verify import recovered

    with err.status("hashing"):
        it = recovered(copy, sources[0], sources[1:])
    if as_json:
        out.json(it.as_json())
    else:
        show.recovery(out, it)
    raise typer.Exit(it.status)
