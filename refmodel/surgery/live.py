"""Run a real llama.cpp under a route: on a copy that the route made."""

from collections.abc import Sequence
from pathlib import Path

from ..compare.dequantized import dequantized as dequantized_copy
from ..compare.other_side import Other, from_trace
from ..compare.probes import known
from ..forward.trace import Trace
from ..gguf.reader import read
from ..llamacpp.library import Given, locate
from ..llamacpp.oracle import record
from ..llamacpp.profile import Profile
from ..model.model import Model
from ..model.route import Route
from ..numerics import llamacpp
from .gguf import routed


def live(
    model: Model,
    route: Route,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    lib: Given,
    dequantize: bool,
    folder: Path,
    mtp: bool = False,
) -> Other:
    """Run llama.cpp on the file, or on a copy in `folder` that the route and --dequantized need, and take every tensor.

    mtp  also take the tensors of its draft head

    OracleError without a llama.cpp; RouteError for a route that it cannot run.
    """
    path = model.path
    if not route.is_identity or model.file.notes:  # what was renamed, llama.cpp does not open
        path = routed(model, route, folder / "routed.gguf")
    if not dequantize:
        return of_file(path, model, route, calls, profile, lib, folder, mtp)
    path = dequantized_copy(read(path), folder / "dequantized.gguf")
    return of_file(path, model, route, calls, profile, lib, folder, mtp, ran=path)


def of_file(
    path: Path,
    model: Model,
    route: Route,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    lib: Given,
    folder: Path,
    mtp: bool = False,
    ran: Path | None = None,
) -> Other:
    """Run llama.cpp on a file that computes a route of the model, and take every tensor.

    ran  the file that is run, if its weights are not the model's

    OracleError without a llama.cpp.
    """
    library = locate(lib)
    probed = known(library)
    provenance = {"route": route.canonical, "sha256": model.file.sha256(), "oracle": probed.as_json()}
    run = record(path, calls, profile, folder / "llamacpp.safetensors", library, provenance, mtp=mtp)
    return from_trace(Trace(run.path), llamacpp(run.profile, probed.build), probed.unpromised, ran)
