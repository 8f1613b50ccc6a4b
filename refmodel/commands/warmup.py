"""`refmodel warmup`: compile kernels beforehand."""

from contextlib import ExitStack
from typing import Annotated

import typer

from ..machine import kernel_cache
from ..machine.threads import use
from ..report.console import out
from .compiling import compile_missing
from .options import NumericsName, file_of, numerics_of


def warmup(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A GGUF. Default: what a typical K-quant file needs.")] = "",
    numerics: NumericsName = "fast",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processes. Default: one per core.")] = None,
) -> None:
    """Compile the kernels that a model needs, one process per core, and keep them for later runs."""
    use(threads)
    from ..model.model import load
    from ..speed.warmup import typical_models, work

    policy = numerics_of(numerics)
    with ExitStack() as files:
        paths = [file_of(model)] if model else files.enter_context(typical_models())
        works = [one for path in paths for one in work(load(path), policy.name)]
        compiled, seconds = compile_missing(works)
    out.print(
        f"{len(works)} pieces of work, {compiled} compiled in {seconds:.1f} s, {len(works) - compiled} were there; "
        f"kept in {kernel_cache.folder()}",
        markup=False,
        soft_wrap=True,
    )
