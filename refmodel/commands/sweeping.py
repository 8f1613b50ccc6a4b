"""What `refmodel sweep run` does with its words: an engine, a search, a ledger."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SweepError
from ..report.console import err
from .compiling import prepare
from .sweep_options import LOCAL, RAY

if TYPE_CHECKING:
    from ..forward.numerics import Numerics
    from ..model.model import Model
    from ..sweep.engines import Engine, Probe
    from ..sweep.ledger import Sweep
    from ..sweep.sweep import Note, Run
    from ..sweep.windows import Wishes

    Search = Callable[[Run], dict[str, Any]]  # asks its routes; returns figures for --json


def search_of(n_layer: int, wishes: "Wishes", beam: bool, two_pass: bool, race: bool | None, prior: float = 0) -> "Search":
    """How a sweep goes through which routes: a race, all, or a search. SweepError for options that do not go together.

    race   what --race and --full say; None is a race, unless a search is asked for
    prior  the share of windows that may start in a race; 0 is all
    """
    from ..sweep import search, sweep
    from ..sweep.prior import likely
    from ..sweep.windows import every_window, planned, window_of

    if not (wishes.any or beam or two_pass):
        raise SweepError("nothing to try: give --all, --windows, --skip, --swap, --times, --routes, --beam or --two-pass")
    racing = race if race is not None else not (beam or two_pass)
    if beam + two_pass + racing > 1 or (two_pass and wishes.any):
        raise SweepError("--beam, --two-pass and --race exclude each other, and --two-pass chooses its windows; leave one out")
    if prior and not racing:
        raise SweepError("--prior chooses who starts in a race; leave it out, or leave out --full, --beam and --two-pass")
    if two_pass:
        return lambda run: {"routes": len(search.two_passes(run))}
    plan = planned(wishes, n_layer)
    if beam:
        windows = [window for route in plan[1:] if (window := window_of(route))] if wishes.any else every_window(n_layer)
        return lambda run: {"routes": len(search.beam(run, windows))}

    def raced(run: "Run") -> dict[str, Any]:
        starts = likely(run, plan, prior) if prior else plan
        won = sweep.race(run, starts)
        return {
            "routes": len(starts),
            "not_started": len(plan) - len(starts),
            "rungs": [asdict(rung) for rung in won.rungs],
            "asked": won.asked,
            "sure": won.sure,
        }

    def through(run: "Run") -> dict[str, Any]:
        sweep.full(run, plan)
        return {"routes": len(plan)}

    return raced if racing else through


def check_engine(name: str, address: str) -> None:
    """SweepError for the words of --engine and --address that mean nothing."""
    if name not in (LOCAL, RAY):
        raise SweepError(f"--engine {name[:60]}: expected {LOCAL} or {RAY}")
    if address and name != RAY:
        raise SweepError(f"--address is for --engine {RAY}; add that, or leave it out")


def engine_of(name: str, address: str, model: "Model", numerics: "Numerics", memory: int | None) -> "Engine":
    """Where passes run. SweepError without Ray, or without a cluster at the address."""
    if name == RAY:
        from ..sweep.ray_engine import OnRay

        with err.status("joining the cluster"):
            return OnRay(model, numerics.name, address, memory)
    from ..sweep.engines import Local

    return Local(model, numerics, memory)


def swept(engine: "Engine", probes: "dict[str, Probe]", search: "Search", numerics: "Numerics", output: Path) -> dict[str, Any]:
    """Run a search into the ledger, then ask the finalists what was held out. Returns figures for --json."""
    from ..report.progress import sweeping
    from ..sweep.ledger import made
    from ..sweep.results import results
    from ..sweep.sweep import Run, hold_out
    from ..sweep.verdict import verdicts

    about = about_of(engine.model, numerics.name, probes)
    with made(output, about) as ledger:
        prepare(engine.model, numerics, [[0] * 512])
        with sweeping(err) as seen:
            run = Run(ledger, probes, engine, numerics, runtimes_of(engine.model), seen)
            figures = search(run)
            hold_out(run)
        found = results(ledger)
    figures = {"ledger": str(output), "model": about.model, "numerics": about.numerics} | figures
    return figures | {"block_runs": engine.work.executions, "verdicts": [verdict.as_json() for verdict in verdicts(found)]}


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
