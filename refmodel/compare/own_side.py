"""A run of ours as the other side of a comparison, recorded as any other program's is."""

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from ..forward.numerics import Numerics
from ..forward.trace import Recorder, Spool, Trace
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from .other_side import ALL, Other, from_trace


def own_side(
    model: Model,
    route: Route,
    calls: Sequence[Sequence[int]],
    num: Numerics,
    keep: str,
    path: Path,
    seen: Callable[[str], None],
) -> Other:
    """A pass under that numerics.

    keep  a regular expression: only taps in which it is found are kept
    path  of the trace that keeps them (.safetensors)
    seen  called with every tap

    Errors as Session.forward raises them.
    """
    said = {"producer": f"refmodel {version('refmodel')}, numerics {num.name}", "calls": [list(call) for call in calls]}
    said |= {"route": route.canonical, "sha256": model.file.sha256(), "numerics": num.name}
    with Spool(path, {"provenance": json.dumps(said)}) as spool:
        recorder = Recorder(spool, keep, seen)
        session = model.session(route, num, recorder, "mtp_" in keep, recorder.keeps_scores(len(route.layers)))
        for _ in run_calls(session, calls, recorder):
            pass
    return from_trace(Trace(path), num, frozenset() if num.emulates else ALL)
