"""--fault: compute with a fault of the library on purpose, and show what it does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RefmodelError
from ..machine.partial import temporary_folder
from ..report.console import err, out
from .compiling import prepare

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..faults.fault import Engine
    from ..forward.numerics import Numerics
    from ..model.model import Model
    from ..model.route import Route

FaultName = Annotated[
    str,
    typer.Option(
        "--fault", help="Compute with this fault on purpose, or several: a,b. `refmodel faults` lists them.", metavar="NAME[,NAME]"
    ),
]


def with_faults(model: "Model", numerics: "Numerics", words: str) -> "Engine":
    """The engine of a model and numerics with the faults of --fault; the healthy one without any.

    RefmodelError for a name that is not known, or a fault that makes no difference to this model.
    """
    from ..faults.fault import Engine
    from ..faults.library import architectures, the_one

    engine = Engine(model, numerics)
    for word in filter(None, words.split(",")):
        fault = the_one(word.strip())
        faulty = fault.on(engine)
        if faulty is None:
            known = ", ".join(architectures(fault.name))
            raise RefmodelError(
                f"--fault {fault.name}: makes no difference to {model.path}; typical files of {known} show it: leave it out"
            )
        engine = faulty
    return engine


def refuse_with_faults(others: bool) -> None:
    """RefmodelError for options of diff that do not go with --fault; `others` says whether there are any."""
    if others:
        raise RefmodelError(
            "--fault compares with the healthy model, or with the trace or dump of --against; it takes --route, -p, --tokens, "
            "--decode, --chunks, --numerics, --anchor, --all, --map and --json only: leave out the rest"
        )


def healthy_side(
    model: "Model", route: "Route", calls: Sequence[Sequence[int]], numerics: "Numerics | None", folder: Path
) -> "Other":
    """The healthy model's own run of these calls, recorded in `folder`: what a fault is compared with."""
    from ..compare.other_side import recorded
    from ..forward.trace import Recorder, Spool
    from ..model.session import run_calls
    from ..numerics import REFERENCE

    policy = numerics or REFERENCE
    prepare(model, policy, calls)
    provenance = {"calls": calls, "route": route.canonical, "numerics": policy.name, "who": "the healthy model"}
    path = folder / "healthy.safetensors"
    with Spool(path, {"provenance": json.dumps(provenance)}) as writer:
        recorder = Recorder(writer)
        for _ in run_calls(model.session(route, policy, recorder), calls, recorder):
            pass
    return recorded(model, path)


def rows_with_faults(
    model: "Model",
    words: str,
    other: "Other",
    numerics: "Numerics | None",
    anchor: str,
    every: bool,
    as_json: bool,
) -> int:
    """Print every tensor of the model with faults against the other side's. Returns the exit status, 1 if an operation is wrong.

    words   of --fault
    anchor  "", "block" or "node": where the faulty pass starts from the other side's numbers
    """
    from ..compare.other_side import compare, numerics_against
    from ..compare.verdict import judge, measured
    from ..faults.library import the_one
    from ..report import diff as show
    from ..report.progress import watching

    policy, route = numerics_against(numerics, other), model.route(other.route)
    engine = with_faults(model, policy, words)
    prepare(model, policy, other.calls)
    faulty, followed = replace(other, calls=engine.feed(other.calls)), engine.follow(route)
    with temporary_folder() as folder, watching(err, "comparing") as seen:
        noise = measured(model, route, other, folder, seen)
        result = compare(engine.model, followed, faulty, engine.numerics, anchor, seen)
        verdict = judge(engine.model, followed, faulty, seen, engine.numerics, noise)
    if as_json:
        out.json({"fault": words, **show.diff_json(result, verdict, other, policy.name, model)})
    else:
        out.print(show.diff_table(result, verdict, every))
        for word in words.split(","):
            out.print(f"{word.strip()}: {the_one(word.strip()).says}", markup=False, soft_wrap=True)
        out.print(show.diff_headline(result, verdict, other, policy.name, model), markup=False, soft_wrap=True)
    return 1 if verdict.first else 0
