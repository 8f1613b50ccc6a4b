"""`refmodel sweep`: try routes, and show what was found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import SweepError
from ..machine.files import check_target
from ..machine.threads import use
from ..report.console import out
from .options import AsJson, ModelPath, NumericsName, Threads, file_of, model_of, numerics_of
from .pages import Html, Md, Png, reports_of
from .probing import probes_of
from .sweep_options import (
    LOCAL,
    Address,
    Beam,
    EngineName,
    Every,
    HeldOut,
    Ledger,
    Memory,
    Prior,
    Probes,
    Racing,
    Routes,
    Skip,
    Swap,
    Times,
    Tokens,
    TwoPass,
    Windows,
)
from .sweeping import check_engine, engine_of, search_of, swept

if TYPE_CHECKING:
    from ..sweep.results import Result, Results


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
    output: Ledger,
    probe: Probes,
    every: Every = False,
    windows: Windows = None,
    skip: Skip = False,
    swap: Swap = False,
    times: Times = 0,
    beam: Beam = False,
    two_pass: TwoPass = False,
    routes: Routes = None,
    held_out: HeldOut = None,
    race: Racing = None,
    prior: Prior = 0,
    tokens: Tokens = 0,
    memory: Memory = 0,
    engine: EngineName = LOCAL,
    address: Address = "",
    numerics: NumericsName = "fast",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Score the routes of a plan by every probe, and find the best. What is in the ledger already is not computed again."""
    use(threads)
    from ..sweep.windows import Wishes

    wishes = Wishes(every, windows or (), skip, swap, times, routes and file_of(str(routes)))
    check_engine(engine, address)
    loaded = model_of(model)
    search = search_of(loaded.n_layer, wishes, beam, two_pass, race, prior)
    probes = probes_of(loaded, probe, held_out or (), tokens)
    check_target(output, loaded.file.parts)
    runs = engine_of(engine, address, loaded, numerics_of(numerics), int(memory * 2**30) or None)
    figures = swept(runs, probes, search, numerics_of(numerics), output)
    if as_json:
        out.json(figures)
    else:
        said(output, figures)


def said(ledger: Path, figures: dict[str, Any]) -> None:
    """Print the rungs of a race, if it was one, and what the ledger says."""
    from ..report import sweep as report

    if "rungs" in figures:
        report.rungs(out, figures)
    shown_ledger(ledger)


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
    parquet: Annotated[Path | None, typer.Option(help="Write the lines of --jsonl as Parquet (extra [parquet]).")] = None,
    html: Html = None,
    md: Md = False,
    png: Png = None,
) -> None:
    """Show what a sweep found: a table, or lines for other tools."""
    from ..report.sweep_page import sweep_page
    from ..sweep.exports import as_jsonl, write_ng, write_parquet
    from ..sweep.results import chosen

    reports = reports_of(html, md, png, jsonl, [ledger])
    found = read(ledger)
    by = by or next(iter(found.about.probes))
    if by not in found.about.probes:
        raise SweepError(f"--by {by}: the ledger's probes are {', '.join(found.about.probes)}; name one of them")
    rows = chosen(found, size, block, better, loadable, top, by)
    for target in filter(None, (ng, parquet)):
        check_target(target, [ledger])
    if ng:
        write_ng(found, rows, by, ng)
    if parquet:
        write_parquet(found, rows, parquet)
    reports.give(lambda: sweep_page(found, rows, by))
    if jsonl:
        out.say(as_jsonl(found, rows))
    elif not (ng or parquet or reports):
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
