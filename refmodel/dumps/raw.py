"""Raw numbers with an index: a JSON file that says of each array its name, file, format and shape.

    {"tensors": [{"name": "l_out-0", "file": "0.bin", "dtype": "bf16", "shape": [5, 64], "offset": 0}, ...]}

`tensors` may also be an object, name -> the rest; the list may be the whole file. `offset` is in bytes, 0 if it is missing.
"""

from math import prod
from pathlib import Path
from typing import Any

from ..errors import DumpError
from ..gguf.reader import mapped
from ..machine.boundary import from_json
from ..machine.files import contents
from .dump import DTYPES, WORDS, Dump, Numbers, numbers

INDEXES = ("index.json", "manifest.json", "tensors.json")


def read_indexed(path: Path) -> Dump:
    """The arrays that the index `path` names, in files of its folder. DumpError for an entry that does not fit its file."""
    listed = entries(path)
    said = listed[0] if listed else {}
    arrays = {str(entry["name"]): one(path, entry) for entry in listed[1:]}
    calls = said.get("tokens")
    if calls is not None:
        calls = [calls] if calls and isinstance(calls[0], int) else calls
    return Dump(path.parent, "raw numbers with an index", arrays, calls)


def entries(path: Path) -> list[dict[str, Any]]:
    """What an index says of the run, then its entries. DumpError if it has none."""
    value = from_json(contents(path), str(path), DumpError, "write the index again")
    said = value if isinstance(value, dict) else {}
    listed = said.get("tensors", value)
    if isinstance(listed, dict):
        listed = [{"name": name, **entry} for name, entry in listed.items() if isinstance(entry, dict)]
    if not isinstance(listed, list) or not all(isinstance(e, dict) and {"name", "file", "shape"} <= e.keys() for e in listed):
        raise DumpError(f"{path}: expected entries with name, file, dtype and shape; docs/formats.md shows one")
    return [said, *listed]


def is_index(path: Path) -> bool:
    """Whether a JSON file is such an index."""
    try:
        return len(entries(path)) > 1
    except DumpError:
        return False


def one(path: Path, entry: dict[str, Any]) -> Numbers:
    """The array of one entry of the index `path`. DumpError if it is not in its file."""
    name, file = str(entry["name"]), str(entry["file"])
    where = f"{path}: {name}"
    target = path.parent / file
    if path.parent.resolve() not in target.resolve().parents or not target.is_file():
        raise DumpError(f"{where}: its file {file!r} is not in the folder; correct the index")
    said = str(entry.get("dtype", "float32"))
    dtype = WORDS.get(said.lower().removeprefix("torch."), {"BF16": "BF16"}.get(said.upper(), said.upper()))
    try:
        shape, start = tuple(int(n) for n in entry["shape"]), int(entry.get("offset", 0))
    except (TypeError, ValueError):
        raise DumpError(f"{where}: its shape or offset is no number; correct the index") from None
    if dtype not in DTYPES or start < 0 or any(n < 0 for n in shape):
        raise DumpError(f"{where}: dtype {said!r}, shape {list(shape)}, offset {start}; expected one of {', '.join(DTYPES)}")
    data = mapped(target)
    end = start + prod(shape) * int(DTYPES[dtype][-1])
    if end > data.size:
        raise DumpError(f"{where}: needs the bytes up to {end} of {file}, which has {data.size}; was it written whole?")
    return numbers(data[start:end], dtype, shape, where)
