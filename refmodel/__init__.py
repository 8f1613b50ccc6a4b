"""A readable reference interpreter for GGUF language models: any layer route, every intermediate, diffed against llama.cpp."""

TYPE_CHECKING = False  # nothing is imported here: __main__, which prepares Ctrl-C, comes after this
if TYPE_CHECKING:
    from typing import Any

    __version__: str
    from .dumps.trace_writer import TraceWriter
    from .errors import RefmodelError
    from .model.model import Model, load
    from .model.route import Route
    from .model.session import Session
    from .numerics import FAST, LLAMACPP, NUMPY, ORACLE, REFERENCE, Numerics

__all__ = [
    "FAST",
    "LLAMACPP",
    "NUMPY",
    "ORACLE",
    "REFERENCE",
    "Model",
    "Numerics",
    "RefmodelError",
    "Route",
    "Session",
    "TraceWriter",
    "__version__",
    "load",
]

_HOMES = {
    "dumps.trace_writer": ["TraceWriter"],
    "errors": ["RefmodelError"],
    "model.model": ["Model", "load"],
    "model.route": ["Route"],
    "model.session": ["Session"],
    "numerics": ["FAST", "LLAMACPP", "NUMPY", "ORACLE", "REFERENCE", "Numerics"],
}


def check_links() -> None:
    """RefmodelError if this is a checkout whose symbolic links were turned into text files."""
    from pathlib import Path

    from .errors import RefmodelError

    for name in ("kernels", "golden"):
        if not (found := Path(__file__).parent / name).is_dir():
            raise RefmodelError(
                f"{found} is not a folder: it is a symbolic link to ../{name} that did not survive the checkout; "
                "check out again with `git config core.symlinks true`, or install the wheel"
            )


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first asked for: commands that run no model start without Numba."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("refmodel")
    if name == "torch":
        return import_module(".torch", __name__)
    for module, names in _HOMES.items():
        if name in names:
            check_links()
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module 'refmodel' has no attribute {name!r}")
