"""Says how the llama-cpp-python of an environment lays out llama.cpp's structures: JSON on the last line of stdout.

    python describe.py            the package llama_cpp of the Python that runs this
    python describe.py FOLDER     that which is this folder

A program of its own, of the standard library only: it is run by the other environment's Python, which has no refmodel and may be
of another version. Of the package only the module of structures is run, so nothing else that it depends on need be there.
The answer is {"error": why} or {"library", "package", "pointer", "structures": {name: {"size", "fields": [[name, type], ...]}}};
a type is a letter, of signed, unsigned, float, bool or pointer, and a number of bytes.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import re
import sys
import types
from typing import Any

STRUCTURES = ("llama_model_params", "llama_context_params", "llama_batch")
WAYS = {**dict.fromkeys("bhilq", "s"), **dict.fromkeys("BHILQ", "u"), **dict.fromkeys("fd", "f"), "?": "b"}


def folder_of_package() -> str | None:
    """The folder of the installed package; None if there is none."""
    found = importlib.util.find_spec("llama_cpp")
    return found.submodule_search_locations[0] if found and found.submodule_search_locations else None


def structures_of(folder: str) -> Any:
    """The package's module of structures, without the package's own __init__, which needs much more."""
    sys.path.append(os.path.dirname(folder))  # last: what the module imports may be next to the package
    package = types.ModuleType("llama_cpp")
    package.__path__ = [folder]
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


def version_of(folder: str) -> str:
    """The version that the package gives itself; empty if it does not."""
    with open(os.path.join(folder, "__init__.py"), encoding="utf-8") as file:
        found = re.search(r"__version__\s*=\s*[\"']([\w.+-]+)", file.read())
    return found.group(1) if found else ""


def type_of(kind: Any) -> str:
    """A field's type as a letter and a number of bytes."""
    return WAYS.get(getattr(kind, "_type_", "P") if issubclass(kind, ctypes._SimpleCData) else "P", "p") + str(ctypes.sizeof(kind))


def described(structure: Any) -> dict[str, Any]:
    """A structure's size in bytes and its fields."""
    return {"size": ctypes.sizeof(structure), "fields": [[field[0], type_of(field[1])] for field in structure._fields_]}


def answer(folder: str | None) -> dict[str, Any]:
    """The whole answer, for the package in this folder."""
    if not folder:
        return {"error": "has no llama_cpp"}
    try:
        module = structures_of(folder)
        return {
            "library": os.path.abspath(module._lib._name),
            "package": version_of(folder),
            "pointer": ctypes.sizeof(ctypes.c_void_p),
            "structures": {name: described(getattr(module, name)) for name in STRUCTURES},
        }
    except BaseException as error:  # whatever a foreign module does, the answer says it
        return {"error": f"has a llama_cpp that cannot be read ({type(error).__name__}: {error})"}


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules are no one else's
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what foreign code prints is no answer
    print("\n" + json.dumps(answer(sys.argv[1] if len(sys.argv) > 1 else folder_of_package())), file=channel, flush=True)
    os._exit(0)  # a foreign library is not unloaded
