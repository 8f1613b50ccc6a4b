"""The other side of a diff: a live llama.cpp, or a recorded trace, with what is needed to judge it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arrays import F
from ..errors import TraceError
from ..forward.taps import in_call
from ..forward.trace import Trace
from ..llamacpp.builds import AVX2, BUILDS, INSTRUCTIONS, JUDGE, builds_of, compiled_for
from ..llamacpp.library import describe
from ..llamacpp.profile import Profile
from ..model.model import Model
from ..model.route import Route
from ..numerics import LLAMACPP, REFERENCE, Numerics, llamacpp, numerics_of
from .diff import Diff, diff
from .rows import NOT_FINITE, Row
from .views import View

ALL = frozenset({""})  # of the operations whose bits are not known: every one


@dataclass(frozen=True)
class Remark:
    """Something about a dump that its reader should know before its numbers are believed.

    code    one word for programs: bos, shifted-by-one, all-equal, ...
    words   one sentence: what was found, and what to do
    """

    code: str
    words: str


@dataclass(frozen=True)
class Other:
    """One recorded run.

    taps         tap name -> array
    calls        the token ids of each call
    route        the route it ran, in canonical notation
    sha256       of the file it was recorded for; empty if it does not say
    who          one phrase for the headline: build and profile
    arithmetic   the numerics that computes as it does, or nearest to that
    unknown      the operations whose bits are not known, with "" for all of them; none for a known llama.cpp that was tried here
    emitted      how many nodes it computed, and why those were left out that are not compared: name -> reason
    operations   ggml's operation that computed a tap's numbers, where llama.cpp was recorded
    ran          the file that it ran, where that has other weights than the user's
    views        tap name -> what of it the record has, where that is not all
    bits         tap name -> significant bits of its numbers, where they were rounded to fewer than float32 has
    places       the program's own name of an array -> the tap that it is
    remarks      what was found before anything was compared
    apart        each call is a sequence of its own
    strangers    the nodes of its graph that are not known here, in words
    unjudged     taps that are computed from such
    starts       a tap -> the taps that it is computed from; only where the graph is not the one that is known here
    later        the same run in the calls that were really made, where `calls` are fewer; else None
    """

    taps: Mapping[str, F]
    calls: Sequence[Sequence[int]]
    route: str
    sha256: str
    who: str
    arithmetic: Numerics
    unknown: frozenset[str]
    emitted: int
    left_out: Mapping[str, str]
    operations: Mapping[str, str] = field(default_factory=dict)
    ran: Path | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence["Remark"] = ()
    apart: bool = False
    strangers: Sequence[str] = ()
    unjudged: frozenset[str] = frozenset()
    starts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    later: "Other | None" = None

    def is_exact(self, tap: str) -> bool:
        """Whether our arithmetic promises the bits of a tap, given its inputs."""
        return "" not in self.unknown and self.operations.get(tap, "") not in self.unknown

    def judged(self, rows: Sequence[Row]) -> dict[str, Row]:
        """The rows that say whether an operation is right, by tap.

        Where the graph is not the one that is known here, those are not: what is computed from nodes that are not known, what has
        another shape than ours, and what starts from that. Once both sides have had the same numbers that are not finite, nothing
        that has such numbers is judged: what a program makes of them is its own affair.
        """
        misfits = {row.name for row in rows if row.name in self.starts and row.problem and not row.problem.startswith(NOT_FINITE)}
        spoilt = misfits | {tap for tap, starts in self.starts.items() if misfits & set(starts)}
        overflow = next((place for place, row in enumerate(rows) if row.holes), len(rows))
        lost = {row.name for row in rows[overflow:] if row.problem.startswith(NOT_FINITE)}
        return {row.name: row for row in rows if row.name not in self.unjudged | spoilt | lost}


def recorded(model: Model, path: Path, calls: Sequence[Sequence[int]] | None = None, route: Route | None = None) -> Other:
    """The run in a trace file, ours or llama.cpp's.

    calls, route  what it has to be a run of, where they are given

    TraceError if it is of another file, other tokens or another route, or does not say what it is of.
    """
    trace = Trace(path)
    try:
        other = from_trace(trace)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise TraceError(f"{path}: has no provenance that names its tokens; record it with `refmodel trace`") from None
    if not other.calls:
        raise TraceError(f"{path}: was recorded for no tokens at all; record it again with -p or --tokens")
    if calls is not None and [list(call) for call in calls] != other.calls:
        raise TraceError(f"{path}: was recorded for other tokens, {other.calls}; leave out -p and --tokens to use those")
    if route is not None and other.route != route.canonical:
        raise TraceError(
            f"{path}: was recorded for route {other.route}, this run has {route.canonical}; leave out --route to use the "
            "recorded one"
        )
    if other.sha256 not in ("", ours := model.file.sha256()):
        raise TraceError(
            f"{path}: was recorded for another file, sha256 {other.sha256[:12]}…; {model.path} has {ours[:12]}…; give the "
            "file that it was recorded for"
        )
    return other


def from_trace(trace: Trace, arithmetic: Numerics | None = None, unknown: frozenset[str] = ALL, ran: Path | None = None) -> Other:
    """The run in an open trace.

    arithmetic  computes as it did; None for what its provenance says
    unknown     see Other
    ran         see Other

    KeyError, TypeError or ValueError for a trace without provenance: `recorded` turns them into a TraceError.
    """
    provenance: dict[str, Any] = json.loads(trace.metadata["provenance"])
    nodes = json.loads(trace.metadata.get("nodes", "[]"))
    flat = [node for call in nodes for node in call]
    named = [(in_call(node["tap"], k), k, node) for k, call in enumerate(nodes) for node in call if node["tap"]]
    return Other(
        taps=trace,
        calls=[list(map(int, call)) for call in provenance["calls"]],
        route=str(provenance["route"]),
        sha256=str(provenance.get("sha256", "")),
        who=who_of(provenance) or str(trace.path),
        arithmetic=arithmetic or arithmetic_of(provenance),
        unknown=unknown,
        emitted=len(flat) or len(trace),
        left_out={node["name"]: node["reason"] for node in flat if node.get("reason")},
        operations={tap: node.get("source", node["op"]) for tap, _, node in named},
        ran=ran,
        strangers=[f"{node['op']} {node['name']}" for node in flat if node.get("unknown")],
        unjudged=frozenset(tap for tap, _, node in named if not node.get("judged", True)),
        starts={tap: [in_call(start, k) for start in node["starts"]] for tap, k, node in named if "starts" in node},
    )


def who_of(provenance: Mapping[str, Any]) -> str:
    """One phrase for who recorded a run: a llama.cpp's build and profile, else what the provenance says; empty if it does not."""
    if "build" in provenance:
        return f"{describe(provenance['build'])}, profile {Profile(**provenance['profile']).describe()}"
    return str(provenance.get("who", provenance.get("producer", "")))


def arithmetic_of(provenance: Mapping[str, Any]) -> Numerics:
    """The numerics that computes as a recorded run did: that of its llama.cpp, or ours. RefmodelError for an unknown name.

    Of a llama.cpp that is not known it is the known one that is nearest, as its trial said; without a trial, JUDGE. Of one that
    may be several that are known it is the one that its trial said; without a trial, the likeliest.
    """
    if "build" in provenance:
        tried = provenance.get("oracle", {})
        nearest, cpu = BUILDS.get(tried.get("build", ""), JUDGE), INSTRUCTIONS.get(tried.get("cpu", ""), AVX2)
        tried_as, known = compiled_for(nearest, cpu), builds_of(provenance["build"])
        return llamacpp(Profile(**provenance["profile"]), tried_as if tried_as in known or not known else known[0])
    return numerics_of(str(provenance.get("numerics", REFERENCE.name)))


def numerics_against(num: Numerics | None, other: Other) -> Numerics:
    """The policy to compare with: `num` itself; the other side's arithmetic for None, and for LLAMACPP, which names no profile."""
    if num is None or (num is LLAMACPP and other.arithmetic.emulates):
        return other.arithmetic
    return num


def compare(model: Model, route: Route, other: Other, num: Numerics, anchor: str, seen: Callable[[str], None]) -> Diff:
    """Run the calls of the other side against it. `anchor` is "", "block" or "node", as in diff.Anchored."""
    return diff(model, other.calls, other.taps, route, num, anchor, seen, views=other.views, apart=other.apart)
