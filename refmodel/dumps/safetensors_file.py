"""Safetensors files: whatever a program saved there, hidden states of transformers among them."""

from pathlib import Path
from typing import Any

from ..errors import DumpError
from ..forward.trace import Trace
from ..machine.boundary import from_json
from .dump import DTYPES, Dump, Numbers


def read_safetensors(path: Path) -> Dump:
    """The arrays of a safetensors file, mapped, and the text of its header. TraceError if it is damaged."""
    trace = Trace(path)
    arrays = {
        name: Numbers(tuple(entry["shape"]), entry["dtype"], lambda name=name: floats(trace, name))  # type: ignore[misc]
        for name, entry in trace.entries.items()
        if entry["dtype"] in DTYPES
    }
    unread = {name: f"numbers of type {e['dtype']}" for name, e in trace.entries.items() if e["dtype"] not in DTYPES}
    return Dump(path, "a safetensors file", arrays, about=trace.metadata, unread=unread)


def floats(trace: Trace, name: str) -> Any:
    """The numbers of an array, integers as float64."""
    array = trace[name]
    return array.astype(float) if array.dtype.kind in "iub" else array


def provenance(about: dict[str, str]) -> dict[str, Any]:
    """What a trace says of its run, as docs/formats.md has it; empty if it says nothing."""
    try:
        said = from_json(about.get("provenance", "{}"), "provenance", DumpError, "")
    except DumpError:
        return {}
    return said if isinstance(said, dict) else {}
