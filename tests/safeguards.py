"""Two guards that stand around the whole suite: memory that nobody wrote shows, and golden/ cannot be written.

`poisoned` gives every module of refmodel a NumPy whose empty and empty_like are full of NaN, or of the largest integer. It does not
reach the bodies of kernels, which Numba compiles from NumPy itself; the arrays that Python hands to them are reached. Nor does it
reach processes that a test starts.

`golden_is_read_only` ends every attempt of this process to open, move or remove a file there; `snapshot` sees those of any other.
"""

import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import refmodel

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
UNWRITTEN = 0xFF  # every byte of it: a NaN in any float, the largest of unsigned integers
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}


def poisoned_numpy() -> ModuleType:
    """NumPy, but for two functions."""
    numpy = ModuleType("numpy")
    vars(numpy).update(vars(np))
    vars(numpy).update(
        empty=lambda *args, **options: poison(np.empty(*args, **options)),
        empty_like=lambda *args, **options: poison(np.empty_like(*args, **options)),
    )
    return numpy


def poison(x: np.ndarray) -> np.ndarray:
    if np.issubdtype(x.dtype, np.signedinteger):
        x.fill(np.iinfo(x.dtype).max)
    else:
        x.reshape(-1).view(np.uint8).fill(UNWRITTEN)
    return x


def poisoned() -> list[str]:
    """Every module of refmodel but the kernels gets such a NumPy; the names of those that have one.

    refmodel.lm_eval is passed over too: it needs a harness that is seldom there, and makes no array that it does not write.
    """
    numpy, changed = poisoned_numpy(), []
    for found in pkgutil.walk_packages(refmodel.__path__, "refmodel.", onerror=lambda name: None):
        if found.name.startswith(("refmodel.kernels", "refmodel.golden", "refmodel.lm_eval")) or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        if getattr(module, "np", None) is np:
            module.np = numpy
            changed.append(found.name)
    return changed


def golden_is_read_only() -> None:
    """From now on, in this process. An audit hook cannot be taken back."""
    sys.addaudithook(refuse)


def refuse(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = args
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if not writes and not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
            return
        paths = [path]
    elif event in CHANGES:
        paths = [path for path in args[:2] if isinstance(path, (str, bytes, os.PathLike))]
    else:
        return
    for path in paths:
        if not isinstance(path, int) and (at := inside(path)):
            raise PermissionError(f"a test wants to change golden/{at}; only golden/make.py writes there")


def inside(path: Any) -> str:
    """The part of a path below golden/; empty for other paths, and for what Python compiles."""
    real = os.path.realpath(os.fsdecode(path))
    within = real.startswith(f"{GOLDEN}{os.sep}") and "__pycache__" not in real
    return real.removeprefix(f"{GOLDEN}{os.sep}") if within else ""


def snapshot() -> dict[str, tuple[int, int]]:
    """Size and time of every file of golden/."""
    files = (path for path in GOLDEN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(GOLDEN)): ((status := path.stat()).st_size, status.st_mtime_ns) for path in files}
