"""`refmodel demo`: what refmodel does, in one minute, offline."""

import typer

from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import Threads, shipped


def demo(threads: Threads = None) -> None:
    """See it work, offline: a small trained model writes, runs a route, matches llama.cpp bit for bit, and is broken on purpose."""
    use(threads)
    from ..faults.demo import FAULTS, case
    from ..report import demo as show
    from ..report import diff as rows
    from ..report.progress import watching

    c = case(shipped("austen"), shipped("austen-trace"))
    prepare(c.model, c.num, [c.prompt, [0]])
    out.print(show.demo_model(c), markup=False)
    out.print(show.demo_text("It writes, from the file's own blocks", c.prompt_text, c.writes(None)))
    out.print(show.demo_text(f"Under the route {c.route.canonical}, untrained", c.prompt_text, c.writes(c.route)))
    with watching(err, "comparing") as seen:
        agreed, verdict = c.compared(seen), c.judged(seen)
    out.print(show.demo_title("Every tensor of that route's pass against llama.cpp's record of it"))
    out.print(rows.diff_table(agreed, verdict, every=False))
    out.print(rows.diff_headline(agreed, verdict, c.other, c.num.name, c.model), markup=False, soft_wrap=True)
    right = verdict.first is None
    for title, broken in ((title, fault(c)) for title, fault in FAULTS.items()):
        with watching(err, "comparing") as seen:
            found = broken.judged(seen)
        out.print(show.demo_text(title, c.prompt_text, broken.writes(c.route)))
        out.print(rows.faults(found, c.other), markup=False)
        right &= found.first is not None
    out.print(show.next_steps())
    raise typer.Exit(0 if right else 1)
