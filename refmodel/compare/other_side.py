"""The other side of a diff: a live llama.cpp, or a recorded trace, with what is needed to judge it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from ..arrays import F
from ..errors import TraceError
from ..forward.taps import in_call
from ..forward.trace import Trace
from ..llamacpp.builds import BUILDS, Build
from ..llamacpp.profile import Profile
from ..model.model import Model
from ..model.route import Route
from ..numerics import LLAMACPP, REFERENCE, Numerics, llamacpp, numerics_of
from .diff import Diff, diff
from .tolerance import tolerance_for


@dataclass(frozen=True)
class Other:
    """One recorded run.

    taps         tap name -> array
    calls        the token ids of each call
    route        the route it ran, in canonical notation
    sha256       of the file it was recorded for; empty if it does not say
    who          one phrase for the headline: build and profile
    types        tensor types of the matrices that it multiplied
    profile      how llama.cpp, or numerics llamacpp, ran; None for other numerics of ours
    build        of llama.cpp; None for other numerics of ours, or if its arithmetic is not known
    emitted      how many nodes it computed, and why those were left out that are not compared: name -> reason
    operations   ggml's operation that computed a tap's numbers, where llama.cpp was recorded
    """

    taps: Mapping[str, F]
    calls: Sequence[Sequence[int]]
    route: str
    sha256: str
    who: str
    types: set[GGMLQuantizationType]
    profile: Profile | None
    build: Build | None
    emitted: int
    left_out: Mapping[str, str]
    operations: Mapping[str, str] = field(default_factory=dict)


def matrix_types(model: Model) -> set[GGMLQuantizationType]:
    return {w.type for w in model.weights.values() if len(w.shape) > 1}


def recorded(model: Model, path: Path, calls: Sequence[Sequence[int]] | None = None, route: Route | None = None) -> Other:
    """A trace file, ours or llama.cpp's. It must be of this file, and of these tokens and this route where they are given."""
    trace = Trace(path)
    try:
        other = from_trace(trace, matrix_types(model))
    except (KeyError, ValueError, TypeError, AttributeError):
        raise TraceError(f"{path}: has no provenance that names its tokens; record it with `refmodel trace`") from None
    if not other.calls:
        raise TraceError(f"{path}: was recorded for no tokens at all")
    if calls is not None and [list(call) for call in calls] != other.calls:
        raise TraceError(f"{path}: was recorded for other tokens, {other.calls}; leave out -p and --tokens to use those")
    if route is not None and other.route != route.canonical:
        raise TraceError(f"{path}: was recorded for route {other.route}, this run has {route.canonical}")
    if other.sha256 not in ("", ours := model.file.sha256()):
        raise TraceError(f"{path}: was recorded for another file, sha256 {other.sha256[:12]}…; {model.path} has {ours[:12]}…")
    return other


def from_trace(trace: Trace, types: set[GGMLQuantizationType]) -> Other:
    provenance: dict[str, Any] = json.loads(trace.metadata["provenance"])
    nodes = json.loads(trace.metadata.get("nodes", "[]"))
    flat = [node for call in nodes for node in call]
    named = [
        (in_call(node["tap"], k), node.get("source", node["op"])) for k, call in enumerate(nodes) for node in call if node["tap"]
    ]
    profile, build = arithmetic(provenance)
    return Other(
        taps=trace,
        calls=[list(map(int, call)) for call in provenance["calls"]],
        route=str(provenance["route"]),
        sha256=str(provenance.get("sha256", "")),
        who=provenance.get("who", provenance.get("producer", str(trace.path))),
        types=types if profile else {GGMLQuantizationType.F32},  # our other numerics round no activations
        profile=profile,
        build=build,
        emitted=len(flat) or len(trace),
        left_out={node["name"]: node["reason"] for node in flat if node.get("reason")},
        operations=dict(named),
    )


def arithmetic(provenance: Mapping[str, Any]) -> tuple[Profile | None, Build | None]:
    """Under which profile and build a recorded run was computed; none for our float32 and float64."""
    if "build" in provenance:
        return Profile(**provenance["profile"]), BUILDS.get(provenance["build"]["commit"][:7])
    emulated = numerics_of(str(provenance.get("numerics", REFERENCE.name))).emulates
    return (emulated.profile, emulated.build) if emulated else (None, None)


def numerics_against(num: Numerics, other: Other) -> Numerics:
    """The policy itself; but LLAMACPP, which names no profile, becomes the arithmetic with which the other side's llama.cpp ran."""
    if num is not LLAMACPP or other.profile is None:
        return num
    if other.build is None:
        raise TraceError(f"numerics llamacpp: the arithmetic of {other.who} is not known here; known are {', '.join(BUILDS)}")
    return llamacpp(other.profile, other.build)


def compare(model: Model, route: Route, other: Other, num: Numerics, anchor: str, seen: Callable[[str], None]) -> Diff:
    """Run against the other side. `anchor` is "", "block" or "node", as in diff.Anchored."""
    theirs = other.profile is None or (other.profile.kv == "f32" and other.profile.flash_attn == "off")
    exact_cache = theirs and num.cache == num.dtype
    tolerance = tolerance_for(num, other.types, exact_cache, len(route.layers), anchor, model.arch.FACTS.gelu_table)
    return diff(model, other.calls, other.taps, route, num, tolerance, anchor, seen)
