"""`refmodel surgery`: the copy of a GGUF or of a Hugging Face folder under a route, and what it came to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import RouteError
from ..gguf.format import OURS
from ..gguf.reader import read
from ..gguf.writer import Limit
from ..hf.folder import read_folder
from ..model.model import load
from ..model.route import Route
from .copy_map import folder_plan
from .gguf import LAYOUTS, plan_of, routed
from .hf_write import SHARD, routed_folder


def operate(source: Path, words: str, out: Path, layout: str, limit: Limit, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """Write a copy, GGUF or folder. Returns what was written, as --json prints it.

    words  the route
    seen   gets the number of bytes just copied, and of all

    RouteError for an empty route or an unknown layout; the errors of gguf.routed and hf_write.routed_folder.
    """
    if layout not in LAYOUTS:
        raise RouteError(f"--layout {layout}: expected {' or '.join(LAYOUTS)}; leave it out for list")
    if not words.strip():
        raise RouteError("--route is empty; for a copy in the source's own order write --route identity")
    done = folder if source.is_dir() else gguf
    return {"source": str(source), **done(source, words, out, layout, limit, seen)}


def gguf(source: Path, words: str, out: Path, layout: str, limit: Limit, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """Write a GGUF; as `operate`."""
    model = load(source)
    route = model.route(words)
    tensors = model.file.tensors
    total = sum(tensors[name].data.size for name in plan_of(model, route).origins(tensors).values())
    path = routed(model, route, out, layout, limit, lambda count: seen(count, total))
    written = read(path)
    return summary(route, path, written.parts, len(written.tensors), written.metadata.str(f"{OURS}source.sha256"))


def folder(source: Path, words: str, out: Path, layout: str, limit: Limit, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """Write a folder; as `operate`. RouteError for a layout other than list."""
    if layout != "list":
        raise RouteError(
            f"--layout {layout}: is for GGUF files; folders list the kinds of their layers in layer_types; leave it out"
        )
    held = read_folder(source)
    route = Route.of(words, held.n_layer)
    total = sum(held.tensors[name].data.size for name in folder_plan(held, route).origins(held.tensors).values())
    routed_folder(held, route, out, limit if limit != Limit() else SHARD, lambda count: seen(count, total))
    written = read_folder(out)
    return summary(route, out, written.shards, len(written.tensors), written.config["rys_relayer"]["source_sha256"])


def summary(route: Route, path: Path, files: tuple[Path, ...], tensors: int, sha256: Any) -> dict[str, Any]:
    """What was written, as --json prints it."""
    return {
        "path": str(path),
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "tensors": tensors,
        "route": route.canonical,
        "map": list(route.layers),
        "positions": len(route.layers),
        "source_layers": route.n_layer,
        "source_sha256": sha256,
    }
