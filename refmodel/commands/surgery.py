"""`refmodel surgery`: write a routed copy."""

from pathlib import Path
from typing import Annotated

import typer

from ..report.console import err, out
from .options import SHIPPED, AsJson, file_of


def surgery(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"A GGUF, a Hugging Face folder with safetensors files, or {SHIPPED}.")
    ],
    route: Annotated[str, typer.Option("--route", help="blocks:i,j · layers:0..14,12,13 · (i,j)")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The copy: a GGUF, or a folder.")],
    layout: Annotated[
        str,
        typer.Option(help="How a hybrid's kinds of blocks are written: list, or interval for runtimes that do not read the list."),
    ] = "list",
    split_max_size: Annotated[str, typer.Option(help="Split into files of at most this many bytes of tensors: 500M, 4G.")] = "",
    split_max_tensors: Annotated[int, typer.Option(min=0, help="Split into files of at most N tensors.", metavar="N")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a file that computes a route in any runtime: tensors copied byte for byte, metadata rewritten to match."""
    from ..gguf.writer import Limit
    from ..report.progress import copying
    from ..report.surgery import copied
    from ..surgery.make_copy import operate

    limit = Limit.of(split_max_size, split_max_tensors)
    with copying(err) as seen:
        done = operate(file_of(model), route, output, layout, limit, seen)
    if as_json:
        out.json(done)
    else:
        copied(out, done)
