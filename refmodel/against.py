"""The other side of a diff: a live llama.cpp, or a recorded trace, with what is needed to judge it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from .arrays import F
from .diff import Diff, diff
from .errors import TraceError
from .gguf.reader import read
from .llamacpp import record
from .model import Model
from .numerics import Numerics, llamacpp, numerics_of
from .profile import BUILDS, DEFAULT, INSTRUCTIONS, JUDGE, Build, Profile, build_of, profile_of
from .route import Route
from .surgery import dequantized as dequantized_copy
from .surgery import routed
from .tolerance import GELU, tolerance_for
from .trace import Trace, in_call


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


def live(
    model: Model,
    route: Route,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    lib: Path | None,
    dequantize: bool,
    folder: Path,
    mtp: bool = False,
) -> Other:
    """Run llama.cpp on the file, or on a copy in `folder` that the route (and --dequantized) made, and take every tensor.

    With `mtp` also those of its draft head, which then is compared, too.
    """
    path = model.path
    if not route.is_identity:
        path = routed(model, route, folder / "routed.gguf")
    if dequantize:
        path = dequantized_copy(read(path), folder / "dequantized.gguf")
    provenance = {"route": route.canonical, "sha256": model.file.sha256()}
    record(path, calls, profile, folder / "llamacpp.safetensors", lib, provenance, mtp=mtp)
    types = {GGMLQuantizationType.F32} if dequantize else matrix_types(model)
    return from_trace(Trace(folder / "llamacpp.safetensors"), types)


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
        return Profile(**provenance["profile"]), build_of(provenance["build"])
    name, _, options = str(provenance.get("numerics", "")).partition(":")
    return (profile_of(options or DEFAULT.name), JUDGE) if name == "llamacpp" else (None, None)


def numerics_beside(text: str, other: Other) -> Numerics:
    """The policy of that name; `llamacpp` alone computes as the other side's llama.cpp ran."""
    if text != "llamacpp" or other.profile is None:
        return numerics_of(text)
    if other.build is None:
        known = f"{', '.join(BUILDS)}, compiled for {', '.join(INSTRUCTIONS)}"
        raise TraceError(f"numerics llamacpp: the arithmetic of {other.who} is not known here; known are {known}")
    return llamacpp(other.profile, other.build)


def compare(model: Model, route: Route, other: Other, num: Numerics, anchor: str, seen: Callable[[str], None]) -> Diff:
    """Run beside the other side. `anchor` is "", "block" or "node", as in diff.Anchored."""
    theirs = other.profile is None or (other.profile.kv == "f32" and other.profile.flash_attn == "off")
    exact_cache = theirs and num.cache == num.dtype
    tolerance = tolerance_for(num.name, other.types, exact_cache, len(route.layers), anchor, model.architecture in GELU)
    return diff(model, other.calls, other.taps, route, num, tolerance, anchor, seen)
