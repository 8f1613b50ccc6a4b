"""Taps: who looks at a forward pass while it runs, and the file that remembers what was seen."""

import json
import re
import shutil
import struct
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from ..arrays import F
from ..errors import TraceError
from ..machine.boundary import from_json, handed
from ..machine.files import check_regular, whole
from .taps import in_call


class Spool:
    """A trace file in the making: tensors are kept in an unnamed temporary file next to the target as they arise.

    path      of the target; its suffix chooses the format, .safetensors or .npz
    metadata  text -> text, for the file's header; a trace has the key `provenance` there

    Use it in a `with`: the target appears, whole, at the end, and not at all after an error. TraceError for another suffix, a
    folder that does not exist or cannot be written, or a name that arises twice.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        if path.suffix not in ASSEMBLERS:
            raise TraceError(f"{path}: expected a name ending in {' or '.join(ASSEMBLERS)}; rename it")
        self.path, self.metadata, self.assemble = path, dict(metadata), ASSEMBLERS[path.suffix]
        self.entries: dict[str, dict[str, Any]] = {}
        if not path.parent.is_dir() or path.is_dir():
            raise TraceError(
                f"{path}: "
                + ("is a folder; name a file in it" if path.is_dir() else f"the folder {path.parent} does not exist; make it first")
            )
        try:
            self.data = tempfile.TemporaryFile(dir=path.parent)
        except OSError as error:  # names a temporary file, of which the user knows nothing
            raise TraceError(f"{path}: cannot be written: {error.strerror}; name another place") from None

    def add(self, name: str, x: F) -> None:
        """Append one float16, float32 or float64 array of any shape under a new name. TraceError for a name that arises twice."""
        if name in self.entries:
            raise TraceError(f"{self.path}: {name} arose twice; a trace holds one array for each name; give each its own")
        x, start = np.ascontiguousarray(x), self.data.tell()
        self.data.write(x.data.cast("B") if x.size else b"")
        dtype = {"f2": "F16", "f4": "F32", "f8": "F64"}[x.dtype.str[1:]]
        self.entries[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [start, start + x.nbytes]}

    def __len__(self) -> int:
        return len(self.entries)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self.data:
            if kind is None:
                self.finish()

    def finish(self) -> None:
        """Write the target, under a temporary name first: it appears whole or not at all. FileError if it cannot be written."""
        with whole([self.path]) as (out,):
            self.data.seek(0)
            self.assemble(self, out)


def as_safetensors(spool: Spool, out: IO[bytes]) -> None:
    """Write a spool as a safetensors file: the format's header, then the spooled bytes as they are."""
    header = json.dumps({"__metadata__": spool.metadata, **spool.entries}).encode()
    header += b" " * (-len(header) % 8)
    out.write(struct.pack("<Q", len(header)) + header)
    shutil.copyfileobj(spool.data, out, 1 << 22)


def as_npz(spool: Spool, out: IO[bytes]) -> None:
    """Write a spool as a NumPy archive, one array for each tensor; the metadata is JSON in an array of one string, __metadata__."""
    with zipfile.ZipFile(out, "w") as archive:
        add_member(archive, "__metadata__", np.array(json.dumps(spool.metadata)))
        for name, entry in spool.entries.items():
            start, end = entry["data_offsets"]
            spool.data.seek(start)
            dtype = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[entry["dtype"]]
            add_member(archive, name, np.frombuffer(spool.data.read(end - start), dtype).reshape(entry["shape"]))


def add_member(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    """Write one array to a NumPy archive under a name; without pickling."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


ASSEMBLERS: dict[str, Callable[[Spool, IO[bytes]], None]] = {".safetensors": as_safetensors, ".npz": as_npz}


READ = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # the format's name -> NumPy's of what is in the file


class Trace(Mapping[str, F]):
    """A recorded trace, a mapping: names in the order in which they arose -> arrays, read when they are asked for.

    path      of a safetensors file
    metadata  its header's text -> text
    entries   its header: name -> dtype (the format's name), shape, data_offsets

    TraceError if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        cure = "record it with `refmodel trace`"
        check_regular(path)
        with handed("safetensors", str(path), TraceError, cure, "not a readable safetensors trace"):
            self._file = safe_open(path, framework="numpy")
        self._opened = open(path, "rb")  # kept: the path may be that of another trace by and by
        self._alone = threading.Lock()  # whoever reads moves the place in the file
        weakref.finalize(self, self._opened.close)
        (length,) = struct.unpack("<Q", self._opened.read(8))
        entries = from_json(self._opened.read(length), f"{path}: its header", TraceError, cure)
        self._start = 8 + length
        self.metadata: dict[str, str] = entries.pop("__metadata__", None) or {}
        self.entries: dict[str, dict[str, Any]] = {n: entries[n] for n in sorted(entries, key=lambda n: entries[n]["data_offsets"])}

    def __getitem__(self, name: str) -> F:
        entry = self.entries[name]
        if entry["dtype"] not in READ:
            with handed("safetensors", f"{self.path}: {name}", TraceError, "record it again"):
                return self._file.get_tensor(name)
        start, stop = entry["data_offsets"]
        with self._alone:  # read, not mapped: pages of a map stay in memory
            self._opened.seek(self._start + start)
            data = np.fromfile(self._opened, np.uint8, stop - start)
        if len(data) < stop - start:
            raise TraceError(f"{self.path}: {name}: ends after {len(data)} of {stop - start} bytes; record it again")
        x = data.view(READ[entry["dtype"]]).reshape(entry["shape"])
        return x if entry["dtype"] != "BF16" else (x.astype(np.uint32) << 16).view(np.float32)  # exact: NumPy has no such type

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Recorder:
    """A tapper that writes intermediates to a Spool; in call k >= 1 it adds `@k` to their names.

    writer   the Spool
    pattern  a regular expression; a tap is kept if its name has a match, and every tap if the pattern is empty
    seen     called with every name, for a progress bar

    TraceError if the pattern is no regular expression, or a name arises twice.
    """

    def __init__(self, writer: Spool, pattern: str = "", seen: Callable[[str], None] = lambda name: None) -> None:
        try:
            self._match = re.compile(pattern).search
        except (re.error, OverflowError, RecursionError) as error:
            raise TraceError(f"--filter {pattern[:60]}: not a regular expression ({error}); correct it, or leave it out") from None
        self.writer, self.seen, self.call = writer, seen, 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` tokens, begins: from here on names end in `@call`; in call 0 in nothing."""
        self.call = call

    def __call__(self, name: str, x: F) -> F:
        self.seen(name)
        if self._match(name):
            self.writer.add(in_call(name, self.call), x)
        return x

    def keeps_scores(self, positions: int) -> bool:
        """Whether attention's scores or weights of any of these positions are kept; `positions` is how many there are."""
        return any(self._match(f"{stem}-{p}") for stem in ("kq", "kq_soft_max") for p in range(positions))
