"""Where a llama.cpp is: its files, what describes its structures, and what it reports about itself."""

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import OracleError
from . import bindings
from .asking import ask
from .builds import FEATURES

ENV = "REFMODEL_LLAMA_LIB"
WAYS = (
    f"give a libllama or its folder with --llama-lib PATH, or in {ENV}, or a Python that has llama-cpp-python with --llama-python, "
    "or pip install 'refmodel[llamacpp]'"
)
FOLDERS = ("", "lib", "bin", "build/bin", "bins/linux-x64")  # where a given folder may hold it
LIBLLAMA = re.compile(r"libllama(\.[vb][\d.]+)?\.so(\.\d+)*")
VARIANT = "libggml-cpu-haswell.so"  # of builds with one library for each CPU level: the same AVX2 bits on all newer machines
KERNELS = re.compile(r"libggml-cpu-\w+\.so")  # who gives one of them instead of libllama chooses it
PATIENCE = 600.0  # seconds without a sign of life; the longest silence is the loading of a file from a slow disk


@dataclass(frozen=True)
class Library:
    """A libllama.

    path      of the libllama
    before    what must be loaded before it, in order
    variant   its CPU kernels, where they are a file of their own
    bindings  the answer of describe.py about its structures, as text; empty for one that is recognised by itself
    """

    path: Path
    before: tuple[Path, ...] = ()
    variant: Path | None = None
    bindings: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """What a child is told of it."""
        described = json.loads(self.bindings) if self.bindings else None
        return {"files": [str(p) for p in (*self.before, self.path)], "variant": str(self.variant or ""), "bindings": described}

    @property
    def build(self) -> Mapping[str, str]:
        """name, ggml (its version), commit, features, and kernels if they are a file of their own. OracleError if it is misread."""
        return build_of(self, self.path.stat().st_mtime_ns)

    def describe(self) -> str:
        """One phrase for its build: `llama.cpp 0c1e57098 (llama-cpp-python 0.3.36, ggml 0.25.3)`. OracleError as `build`."""
        return describe(self.build)


@cache
def build_of(library: Library, modified: int) -> Mapping[str, str]:
    """What a library reports about itself; a process asks once while the file (its time `modified`) is the same. OracleError."""
    build: Mapping[str, str] = ask(library.request, {}, str(library.path), patience=60.0)["build"]
    return build


def describe(build: Mapping[str, str]) -> str:
    """One phrase for a build: `llama.cpp 0c1e57098 (llama-cpp-python 0.3.36, ggml 0.25.3)`."""
    features = " ".join(name for name in build.get("features", "AVX2").split() if name in FEATURES - {"AVX"})
    kernels = f"{build['kernels']} kernels" if "kernels" in build else "" if features == "AVX2" else features
    parts = [build["name"], f"ggml {build['ggml']}" if build["ggml"] else "", kernels]
    return f"llama.cpp {build['commit'] or 'of an unknown commit'} ({', '.join(filter(None, parts))})"


Given = Path | Library | None  # a libllama or its folder, one that was located, or none


def locate(lib: Given = None, python: str = "") -> Library:
    """A llama.cpp: `lib` (a libllama or its folder), else the environment's, else the installed llama_cpp package's.

    python  whose llama-cpp-python describes the structures, and is the llama.cpp if `lib` is none

    Raises OracleError: what a given path or Python lacks, and the ways to give one.
    """
    if isinstance(lib, Library):
        return lib
    if python:
        answer = bindings.of_python(python)
        found = library(lib or Path(answer["library"]), "--llama-lib" if lib else f"--llama-python {python}")
        return replace(found, bindings=json.dumps(answer))
    if lib is not None:
        return library(Path(lib), "--llama-lib")
    if given := os.environ.get(ENV):
        return library(Path(given), ENV)
    package = importlib.util.find_spec("llama_cpp")  # finds it, does not run it
    if package is None or not package.submodule_search_locations:
        raise OracleError(f"no llama.cpp found: {WAYS}")
    return library(Path(package.submodule_search_locations[0]), "the installed llama_cpp")


def library(path: Path, origin: str) -> Library:
    """The libllama that is `path` or is in it, with its neighbours; or that of the CPU kernels that `path` is.

    OracleError, which names `origin` as the source of the path, if there is none.
    """
    if not path.exists():
        raise OracleError(f"{path} (from {origin}) does not exist: {WAYS}")
    chosen = KERNELS.fullmatch(path.name) is not None
    found = path if path.is_file() and not chosen else next(_libllamas(path.parent if chosen else path), None)
    if found is None:
        raise OracleError(f"{path} (from {origin}) holds no libllama.so: {WAYS}")
    found = found.absolute()
    if not list(found.parent.glob("libggml-cpu-*.so")):
        return Library(found, bindings=described(found))  # its own references lead to its neighbours
    variant = path.absolute() if chosen else found.with_name(VARIANT)
    if not variant.is_file():
        raise OracleError(
            f"{found.parent} has kernels for several CPU levels, but not {VARIANT}, the one that is known here; give a "
            "build with that, or one with a single libggml-cpu.so"
        )
    return Library(found, tuple(_neighbour(found, stem) for stem in ("libggml-base", "libggml")), variant)


def described(libllama: Path) -> str:
    """What the llama-cpp-python says that a libllama is part of, as text; empty if it is part of none, or that cannot be read."""
    folders = (folder for folder in list(libllama.parents)[:2] if (folder / "llama_cpp.py").is_file())
    with suppress(OracleError):
        return next((json.dumps(bindings.of_package(folder)) for folder in folders), "")
    return ""


def _libllamas(folder: Path) -> Iterator[Path]:
    for below in FOLDERS:
        found = sorted((folder / below).glob("libllama*"), key=lambda p: (len(p.name), p.name))
        yield from (p for p in found if LIBLLAMA.fullmatch(p.name) and p.is_file())


def _neighbour(libllama: Path, stem: str) -> Path:
    pattern = re.compile(rf"{stem}(\.[vb][\d.]+)?\.so")
    found = sorted(p for p in libllama.parent.iterdir() if pattern.fullmatch(p.name))
    if not found:
        raise OracleError(f"{libllama} has no {stem}.so in its folder; give the folder of a whole llama.cpp")
    return found[0]
