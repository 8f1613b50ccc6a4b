"""NumPy's files: one array in a .npy, several in an .npz. Nothing in them is unpickled.

Source: the format's description in numpy.lib.format; bfloat16 arrays are raw two-byte values there (ml_dtypes writes `V2`).
"""

import io
import re
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..arrays import Bytes, F
from ..errors import DumpError
from ..gguf.reader import mapped
from ..machine.boundary import from_json, handed
from .dump import Dump, Numbers, decoded

WRITE = "write it again with numpy.savez"
MAGIC, ZIP = b"\x93NUMPY", b"PK\x03\x04"
HEADER = 1 << 16  # bytes; NumPy's own bound is smaller
MOST = 1 << 40  # bytes of one array: more than any machine has, and small enough to multiply
NAMES = {("f", 8): "F64", ("f", 4): "F32", ("f", 2): "F16", ("V", 2): "BF16", ("b", 1): "U8"}
NAMES |= {("i", n): f"I{8 * n}" for n in (8, 4, 2, 1)} | {("u", 1): "U8"}


def header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether columns come first, dtype) of a .npy, whose data begins where `file` then is.

    DumpError for an array of Python objects, or a header that cannot be read.
    """
    with handed("NumPy", f"{where}: its header", DumpError, "write it again with numpy.save"):
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns, dtype = read(file)
    if dtype.hasobject:
        raise DumpError(
            f"{where}: holds Python objects, which are not read; save numbers: np.save(name, np.asarray(x, np.float32))"
        )
    if prod(shape) * max(dtype.itemsize, 1) > MOST or any(n < 0 for n in shape):
        raise DumpError(f"{where}: its header says shape {list(shape)}, which no file can hold; write it again")
    return shape, columns, dtype


def named(dtype: np.dtype[Any], where: str) -> str:
    """The name of a number format. DumpError for one that is none of DTYPES."""
    if (dtype.kind, dtype.itemsize) not in NAMES:
        raise DumpError(f"{where}: has numbers of type {dtype}; save it as float32")
    return NAMES[dtype.kind, dtype.itemsize]


def array(path: Path) -> Numbers:
    """The array of a .npy file, mapped while it is read. DumpError if it is damaged, truncated, or holds objects."""
    with path.open("rb") as file:
        beginning = io.BytesIO(file.read(HEADER))  # NumPy makes room for as much as a header says
    shape, columns, dtype = header(beginning, str(path))
    start, kind, needed = beginning.tell(), named(dtype, str(path)), prod(shape) * dtype.itemsize

    def data() -> Bytes:
        """Its bytes, in a mapping of their own: of a large folder only what is being read takes memory."""
        found = mapped(path)[start:]
        if found.size != needed:
            raise DumpError(f"{path}: has {found.size} bytes of data; shape {list(shape)} needs {needed}; was it written whole?")
        return found

    def read() -> F:
        """Its numbers; an array whose columns come first is turned."""
        raw = data()
        flat = decoded(raw, kind) if dtype.byteorder != ">" else decoded(raw.reshape(-1, dtype.itemsize)[:, ::-1].ravel(), kind)
        return flat.reshape(shape[::-1]).T if columns else flat.reshape(shape)

    data()
    return Numbers(shape, kind, read)


def member(archive: zipfile.ZipFile, name: str, where: str) -> Numbers:
    """One array of an .npz. DumpError as for `array`."""
    info = archive.getinfo(name)
    with handed("zipfile", where, DumpError, WRITE), archive.open(name) as file:
        start = io.BytesIO(file.read(HEADER))
    shape, columns, dtype = header(start, where)
    kind, needed = named(dtype, where) if dtype.kind != "U" else "U8", prod(shape) * dtype.itemsize
    if info.file_size - start.tell() != needed:
        raise DumpError(f"{where}: has {info.file_size - start.tell()} bytes of data; shape {list(shape)} needs {needed}")

    def read() -> F:
        """Its numbers, decompressed when they are asked for."""
        with handed("zipfile", where, DumpError, WRITE), archive.open(name) as file:
            file.read(start.tell())
            data = np.frombuffer(file.read(), np.uint8)
        flat = decoded(data if dtype.byteorder != ">" else data.reshape(-1, dtype.itemsize)[:, ::-1].ravel(), kind)
        return flat.reshape(shape[::-1]).T if columns else flat.reshape(shape)

    return Numbers(shape, kind, read)


def read_npz(path: Path) -> Dump:
    """The arrays of an .npz, and what our own traces say in one named __metadata__. DumpError for an archive that is damaged."""
    with handed("zipfile", str(path), DumpError, WRITE):
        archive = zipfile.ZipFile(path)
        names = [info.filename for info in archive.infolist() if info.filename.endswith(".npy")]
    arrays = {name[:-4]: member(archive, name, f"{path}: {name}") for name in names}
    said = "{}"
    if "__metadata__" in arrays:
        with handed("NumPy", f"{path}: __metadata__", DumpError, WRITE):
            said = str(np.load(archive.open("__metadata__.npy"), allow_pickle=False))
    metadata = from_json(said, f"{path}: __metadata__", DumpError, WRITE)
    if not isinstance(metadata, dict):
        raise DumpError(f"{path}: its __metadata__ is no JSON object; {WRITE}")
    arrays.pop("__metadata__", None)
    if not arrays:
        raise DumpError(f"{path}: has no .npy arrays; write them with numpy.savez")
    return Dump(path, "a NumPy archive", arrays, about={str(k): str(v) for k, v in metadata.items()})


def read_npy(path: Path) -> Dump:
    """One array, under the name of its file."""
    return Dump(path, "a .npy file", {re.sub(r"\.npy$", "", path.name): array(path)})
