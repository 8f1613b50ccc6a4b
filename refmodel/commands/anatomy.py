"""`refmodel anatomy`: what each block does."""

from pathlib import Path
from typing import Annotated

import typer

from ..machine.files import check_target
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import AsJson, ModelPath, NumericsName, Prompt, Special, Threads, TokenText, model_of, numerics_of, token_ids
from .pages import Html, Md, reports_of


def anatomy(
    model: ModelPath,
    prompt: Prompt = "",
    tokens: TokenText = "",
    special: Special = False,
    numerics: NumericsName = "reference",
    threads: Threads = None,
    png: Annotated[Path | None, typer.Option(help="Draw the same into a PNG file.", metavar="FILE")] = None,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
) -> None:
    """See what each block does to a text, in one pass: how much it turns the stream, and when the answer is there."""
    use(threads)
    from ..report import anatomy as show
    from ..report.anatomy_page import anatomy_page
    from ..sweep.anatomy import anatomy as looked

    loaded, policy = model_of(model), numerics_of(numerics)
    reports = reports_of(html, md, None, as_json, loaded.file.parts)
    ids = token_ids(loaded, prompt, tokens, special)
    if png:
        check_target(png, loaded.file.parts)
    prepare(loaded, policy, [ids])
    with err.status("one pass"):
        found = looked(loaded, ids, policy)
    if png:
        from ..report.sweep_plots import zones

        zones(found, png, loaded.path.name)
    if as_json:
        out.json(show.anatomy_json(found))
    elif not md:
        show.anatomy(out, found)
    reports.give(lambda: anatomy_page(found, loaded, ids))
