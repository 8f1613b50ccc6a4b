"""transformers' model_addition_debugger_context: a tree of calls as JSON, and a safetensors file for each input and output.

`use_repr=False` writes the numbers; else the tree has a few of them as text, which is not read. `do_prune_layers=False` keeps all
layers. Only modules without parts have outputs in the tree; the input of a layer is the output of the one before it.
Source: transformers model_debugging_utils.py.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DumpError
from ..machine.boundary import from_json
from ..machine.files import contents
from .dump import Dump, Numbers
from .safetensors_file import read_safetensors

ENDING = "_debug_tree_FULL_TENSORS.json"
LAYER = re.compile(r"(?:^|\.)layers\.\d+$")


def trees(folder: Path) -> list[Path]:
    """The trees in a folder."""
    return sorted(folder.glob(f"*{ENDING}"))


def read_tree(path: Path) -> Dump:
    """The arrays that a tree names, by module path; `.input` follows that of a layer.

    DumpError if it has none: it was written with use_repr=True.
    """
    tree = from_json(contents(path), str(path), DumpError, "write it again")
    arrays: dict[str, Numbers] = {}
    calls = None
    for module, part, values in walk(tree, ""):
        found = [one(path, value) for value in leaves(values)]
        kept = [x for x in found if x is not None]
        if part == "inputs" and not module and kept and kept[0].dtype[0] == "I":
            calls = [[int(t) for t in kept[0].read().ravel()]]
        if part == "outputs" and kept:
            arrays.setdefault(module or "logits", kept[0])
        if part == "inputs" and LAYER.search(module) and kept:
            arrays.setdefault(f"{module}.input", kept[0])
    if not arrays:
        raise DumpError(
            f"{path}: has its numbers as text, and only some; write it again with "
            "model_addition_debugger_context(model, debug_path=..., use_repr=False, do_prune_layers=False)"
        )
    return Dump(path.parent, "a tree of transformers' model debugger", arrays, calls)


def walk(node: Any, top: str) -> Iterator[tuple[str, str, Any]]:
    """(module path below the model, inputs or outputs, their values) of a tree's nodes."""
    if not isinstance(node, dict):
        return
    name = str(node.get("module_path", ""))
    top = top or name
    module = name.removeprefix(f"{top}.") if name != top else ""
    for part in ("inputs", "outputs"):
        yield module, part, node.get(part)
    for child in node.get("children") or []:
        yield from walk(child, top)


def leaves(values: Any) -> Iterator[Mapping[str, Any]]:
    """The tensors in nested lists and objects, in order."""
    if isinstance(values, dict) and isinstance(values.get("value"), str):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from leaves(value)


def one(path: Path, value: Mapping[str, Any]) -> Numbers | None:
    """The tensor that a tree names as a file next to it; None if the file is not there."""
    target = path.parent / str(value["value"]).removeprefix("./")
    if target.parent.resolve() != path.parent.resolve() or not target.is_file():
        return None
    return read_safetensors(target).arrays.get("data")
