"""aprender's `apr trace --save-tensor`: files with a header of 12 bytes, in folders layer-N/, the stage as the file's name.

b"APRT", u32 layer (0xFFFFFFFF: of the whole model), u32 how many float32 follow; little-endian. The shape is not written down.
Source: aprender-serve src/inference_trace/save_tensor.rs.
"""

import struct
from pathlib import Path

from ..errors import DumpError
from ..gguf.reader import mapped
from .dump import Dump, numbers

MAGIC, HEADER, OF_ALL = b"APRT", 12, 0xFFFFFFFF


def read_aprt(path: Path) -> Dump:
    """One stage's numbers, [count], named layer-N.stage or stage. DumpError for a file that is not whole."""
    data = mapped(path)
    if data.size < HEADER:
        raise DumpError(f"{path}: ends in its header of {HEADER} bytes; write it again")
    layer, count = struct.unpack("<II", data[4:HEADER].tobytes())
    stage = path.stem
    name = stage if layer == OF_ALL else f"layer-{layer}.{stage}"
    return Dump(path, "an APRT file", {name: numbers(data[HEADER:], "F32", (count,), str(path))})
