"""`refmodel sweep`: try routes, and show what was found."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import SweepError
from ..machine.files import check_target
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import AsJson, ModelPath, NumericsName, Threads, file_of, model_of, numerics_of
from .pages import Html, Md, reports_of
from .probing import probes_of

if TYPE_CHECKING:
    from ..model.model import Model
    from ..sweep.engines import Local, Probe
    from ..sweep.ledger import Sweep
    from ..sweep.results import Result, Results
    from ..sweep.sweep import Note, Run
    from ..sweep.windows import Wishes

    Search = Callable[[Run], dict[str, Any]]  # asks its routes; returns figures for --json


PROBES = (
    "What routes are scored by; may be given again: nll:TEXT, kl:TEXT, choices:FILE, digits:FILE; ng-math, cf-math, ng-eq, cf-eq, "
    "reasoning, each with :FILE, :NUMBER of our own questions, or nothing."
)


class Group(TyperGroup):
    """A group whose first word is a model unless it is one of its commands: `sweep MODEL ...` is `sweep run MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before words that begin with none."""
        known = {*self.commands, "--help"}
        return list(super().parse_args(ctx, args if not args or args[0] in known else ["run", *args]))


sweep = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Try many routes of one model and find out which is better, and whether that is luck. `refmodel sweep MODEL ...` runs a "
    "sweep (`refmodel sweep run --help` lists its options); `refmodel sweep show LEDGER` shows what it found.",
)


@sweep.command("run")
def run(
    model: ModelPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The ledger: a file that is begun, or continued.")],
    probe: Annotated[list[str], typer.Option(metavar="KIND[:FILE]", help=PROBES)],
    every: Annotated[bool, typer.Option("--all", help="Every window (i, j).")] = False,
    windows: Annotated[
        list[str] | None, typer.Option(help='Some windows: "size=4 stride=1 start=8..32"; may be given again.')
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave each window out.")] = False,
    swap: Annotated[bool, typer.Option("--swap", help="Exchange each window with the next one of its size.")] = False,
    times: Annotated[int, typer.Option(min=0, help="Run each window N times in all.", metavar="N")] = 0,
    beam: Annotated[bool, typer.Option("--beam", help="Also routes of two and three of the best windows, by beam search.")] = False,
    two_pass: Annotated[
        bool, typer.Option("--two-pass", help="Large windows first, then small ones where those are best.")
    ] = False,
    routes: Annotated[Path | None, typer.Option(help="A file with routes, one a line, or JSON.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(metavar="KIND:FILE", help="Questions that only check the best routes; may be given again.")
    ] = None,
    race: Annotated[
        bool,
        typer.Option("--race/--full", help="Race: losers leave after a few questions. Full: all meet all, as a heatmap needs."),
    ] = False,
    tokens: Annotated[int, typer.Option(min=0, help="Only the first N tokens of each text; 0 is all.", metavar="N")] = 0,
    memory: Annotated[
        float,
        typer.Option(min=0, help="At most so many GiB for states; 0 is half of what is free.", metavar="GIB"),
    ] = 0,
    numerics: NumericsName = "fast",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Score every route of a plan by every probe. What is in the ledger already is not computed again."""
    use(threads)
    from ..sweep.engines import Local
    from ..sweep.windows import Wishes

    wishes = Wishes(every, windows or (), skip, swap, times, routes and file_of(str(routes)))
    loaded = model_of(model)
    search = search_of(loaded.n_layer, wishes, beam, two_pass, race)
    probes = probes_of(loaded, probe, held_out or (), tokens)
    check_target(output, loaded.file.parts)
    policy = numerics_of(numerics)
    engine = Local(loaded, policy, int(memory * 2**30) or None)
    figures = swept(engine, probes, search, policy.name, output, lambda: prepare(loaded, policy, [[0] * 512]))
    if as_json:
        out.json(figures)
    else:
        said(output, figures)


def search_of(n_layer: int, wishes: "Wishes", beam: bool, two_pass: bool, racing: bool) -> "Search":
    """How a sweep goes through which routes: all, a race, or a search. SweepError for options that do not go together."""
    from ..sweep import search, sweep
    from ..sweep.windows import every_window, planned, window_of

    if not (wishes.any or beam or two_pass):
        raise SweepError("nothing to try: give --all, --windows, --skip, --swap, --times, --routes, --beam or --two-pass")
    if beam + two_pass + racing > 1 or (two_pass and wishes.any):
        raise SweepError("--beam, --two-pass and --race exclude each other, and --two-pass chooses its windows; leave one out")
    if two_pass:
        return lambda run: {"routes": len(search.two_passes(run))}
    plan = planned(wishes, n_layer)
    if beam:
        windows = [window for route in plan[1:] if (window := window_of(route))] if wishes.any else every_window(n_layer)
        return lambda run: {"routes": len(search.beam(run, windows))}

    def raced(run: "Run") -> dict[str, Any]:
        won = sweep.race(run, plan)
        return {"routes": len(plan), "rungs": [asdict(rung) for rung in won.rungs], "asked": won.asked, "sure": won.sure}

    def through(run: "Run") -> dict[str, Any]:
        sweep.full(run, plan)
        return {"routes": len(plan)}

    return raced if racing else through


def swept(
    engine: "Local", probes: "dict[str, Probe]", search: "Search", numerics: str, output: Path, ready: "Callable[[], None]"
) -> dict[str, Any]:
    """Run a search into the ledger, then ask the finalists what was held out. Returns figures for --json.

    ready  called when the ledger is known to be of this sweep, before the first pass
    """
    from ..report.progress import sweeping
    from ..sweep.ledger import made
    from ..sweep.results import results
    from ..sweep.sweep import Run, hold_out
    from ..sweep.verdict import verdicts

    about = about_of(engine.model, numerics, probes)
    with made(output, about) as ledger:
        ready()
        with sweeping(err) as seen:
            run = Run(ledger, probes, engine, runtimes_of(engine.model), seen)
            figures = search(run)
            hold_out(run)
        found = results(ledger)
    figures = {"ledger": str(output), "model": about.model, "numerics": about.numerics} | figures
    return figures | {"block_runs": engine.batch.work.executions, "verdicts": [verdict.as_json() for verdict in verdicts(found)]}


def said(ledger: Path, figures: dict[str, Any]) -> None:
    """Print the rungs of a race, if it was one, and what the ledger says."""
    from ..report import sweep as report

    if "rungs" in figures:
        report.rungs(out, figures)
    shown_ledger(ledger)


def about_of(model: "Model", numerics: str, probes: "dict[str, Probe]") -> "Sweep":
    """What a ledger of this sweep says of itself."""
    from ..sweep.ledger import Sweep

    with err.status("reading the file for its sha256"):
        digest = model.file.sha256()
    return Sweep(digest, model.path.name, model.n_layer, numerics, {n: p.facts.as_json() for n, p in probes.items()})


def runtimes_of(model: "Model") -> "Note":
    """Route -> the runtimes that cannot load a copy under it; they are marked in the ledger, and the route is run here."""
    from ..errors import RefmodelError
    from ..model.route import Route
    from ..surgery.gguf import plan_of
    from ..surgery.runtimes import runners

    def note(route: Route) -> str:
        if route.is_identity:
            return ""
        try:
            return "; ".join(f"not in {r.name}: {r.why}" for r in runners(model, plan_of(model, route)) if not r.runs)
        except RefmodelError as error:
            return f"no copy can be written: {error}"

    return note


@sweep.command("show")
def show(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="What `refmodel sweep MODEL -o LEDGER` wrote.")],
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one line of JSON a route, with circuit-finder's fields.")] = False,
    by: Annotated[str, typer.Option(help="The probe that sorts and filters. Default: the first.", metavar="PROBE")] = "",
    top: Annotated[int, typer.Option(min=0, help="Only the best N routes; 0 is all.", metavar="N")] = 0,
    size: Annotated[int, typer.Option(min=0, help="Only windows of N blocks.", metavar="N")] = 0,
    block: Annotated[int | None, typer.Option(min=0, help="Only routes that repeat block N.", metavar="N")] = None,
    better: Annotated[bool, typer.Option("--better", help="Only routes that score better than the unrouted model.")] = False,
    loadable: Annotated[bool, typer.Option("--loadable", help="Only routes that every runtime can load.")] = False,
    ng: Annotated[Path | None, typer.Option(help="Write the answers to one probe (--by) as Ng's results, a pickle.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the windows by one probe (--by) into a PNG file.", metavar="FILE")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the lines of --jsonl as Parquet (extra [parquet]).")] = None,
    html: Html = None,
    md: Md = False,
) -> None:
    """Show what a sweep found: a table, or lines for other tools."""
    from ..report.sweep_page import sweep_page
    from ..sweep.exports import as_jsonl, write_ng, write_parquet
    from ..sweep.results import chosen

    reports = reports_of(html, md, None, jsonl, [ledger])
    found = read(ledger)
    by = by or next(iter(found.about.probes))
    if by not in found.about.probes:
        raise SweepError(f"--by {by}: the ledger's probes are {', '.join(found.about.probes)}; name one of them")
    rows = chosen(found, size, block, better, loadable, top, by)
    for target in filter(None, (ng, parquet, png)):
        check_target(target, [ledger])
    if ng:
        write_ng(found, rows, by, ng)
    if parquet:
        write_parquet(found, rows, parquet)
    if png:
        from ..report.sweep_plots import sweep_picture

        sweep_picture(found, by, png)
    reports.give(lambda: sweep_page(found, rows, by))
    if jsonl:
        out.say(as_jsonl(found, rows))
    elif not (ng or parquet or png or reports):
        shown_rows(found, rows, by, whole=bool(top or size or better or block is not None))


def read(ledger: Path) -> "Results":
    """What a ledger holds. SweepError if it is none, or has no result yet."""
    from ..sweep.ledger import opened
    from ..sweep.results import results

    with opened(ledger) as base:
        found = results(base)
    if not found.rows:
        raise SweepError(f"{ledger}: has no result yet; run the sweep that it was made for")
    return found


def shown_ledger(ledger: Path) -> None:
    """Print the best routes of a ledger, and the verdict."""
    found = read(ledger)
    shown_rows(found, found.rows, next(iter(found.about.probes)), whole=False)


def shown_rows(found: "Results", rows: "Sequence[Result]", by: str, whole: bool) -> None:
    """Print some routes of a ledger, the best by probe `by` first, and the verdict over all of them; `whole` prints every row."""
    from ..report import sweep as report
    from ..sweep.verdict import verdicts

    report.table(out, found, rows, by, whole)
    report.verdicts(out, verdicts(found))


@sweep.command("trial")
def trial(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="The ledger in which a route was found.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="That of another file of the model, with the same probes.")],
    as_json: AsJson = False,
) -> None:
    """Say whether the best route of one file is also better in another one, such as its quantization."""
    from ..report import sweep as report
    from ..sweep.trial import trials

    found = trials(read(first), read(second))
    if as_json:
        out.json([report.trial_json(one) for one in found])
    else:
        report.trials(out, found)
