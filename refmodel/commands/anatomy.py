"""`refmodel anatomy`: what each block does."""

from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import AsJson, ModelPath, NumericsName, Prompt, Special, Threads, TokenText, model_of, numerics_of, token_ids
from .pages import Html, Md, Png, reports_of


def anatomy(
    model: ModelPath,
    prompt: Prompt = "",
    tokens: TokenText = "",
    special: Special = False,
    numerics: NumericsName = "reference",
    threads: Threads = None,
    as_json: AsJson = False,
    html: Html = None,
    md: Md = False,
    png: Png = None,
) -> None:
    """See what each block does to a text, in one pass: how much it turns the stream, and when the answer is there."""
    use(threads)
    from ..report import anatomy as show
    from ..report.anatomy_page import anatomy_page
    from ..sweep.anatomy import anatomy as looked

    loaded, policy = model_of(model), numerics_of(numerics)
    reports = reports_of(html, md, png, as_json, loaded.file.parts)
    ids = token_ids(loaded, prompt, tokens, special)
    prepare(loaded, policy, [ids])
    with err.status("one pass"):
        found = looked(loaded, ids, policy)
    if as_json:
        out.json(show.anatomy_json(found))
    elif not md:
        show.anatomy(out, found)
    reports.give(lambda: anatomy_page(found, loaded, ids))
