"""Run a real llama.cpp under a route: on a copy that the route made."""

from collections.abc import Sequence
from pathlib import Path

from gguf import GGMLQuantizationType

from ..compare.dequantized import dequantized as dequantized_copy
from ..compare.other_side import Other, from_trace, matrix_types
from ..forward.trace import Trace
from ..gguf.reader import read
from ..llamacpp.oracle import record
from ..llamacpp.profile import Profile
from ..model.model import Model
from ..model.route import Route
from .gguf import routed


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
