"""`refmodel demo`: a small hybrid model under a repeated-layer route, beside what llama.cpp recorded for it. Offline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .against import Other, compare, recorded
from .diff import Diff
from .errors import FileError
from .model import Model, load
from .numerics import REFERENCE
from .route import Route

GOLDEN = Path(__file__).parent / "golden"
MODEL, TRACE = ("models", "qwen35.gguf"), ("traces", "qwen35", "route.safetensors")


@dataclass(frozen=True)
class Shown:
    model: Model
    route: Route
    other: Other
    result: Diff


def golden(*parts: str) -> Path:
    """A file of golden/, which the package carries."""
    path = GOLDEN.joinpath(*parts)
    if not path.exists():
        raise FileError(f"{path} is missing from this installation; install refmodel again")
    return path


def demo(seen: Callable[[str], None]) -> Shown:
    """Run the recorded case again, in float32, and compare every tensor. `seen` is told the name of every tap."""
    model = load(golden(*MODEL))
    other = recorded(model, golden(*TRACE))
    route = model.route(other.route)
    return Shown(model, route, other, compare(model, route, other, REFERENCE, "", seen))
