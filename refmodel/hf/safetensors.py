"""A safetensors file: the tensors that its header lists, as views of its mapping."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arrays import Bytes
from ..errors import FileError
from ..gguf.reader import mapped
from ..machine.boundary import from_json

MAX_HEADER = 100_000_000  # bytes; the format's own bound


@dataclass(frozen=True, eq=False)
class FolderTensor:
    """One tensor.

    type  the format's name of its numbers (BF16)
    data  its bytes, a read-only view of the file's mapping
    file  the path of that
    """

    name: str
    type: str
    shape: tuple[int, ...]
    data: Bytes
    file: Path = Path()


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError for a key that it has twice: programs do not agree on which of them counts."""
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)[:60]} is said twice; say it once")
    return out


def read_safetensors(path: Path) -> list[FolderTensor]:
    """The tensors of one file, in the order of their data. FileError for a file that is not safetensors, or not whole.

    Source: the format's README, github.com/huggingface/safetensors.
    """
    data = mapped(path)
    length = int.from_bytes(data[:8].tobytes(), "little")
    if data.size < 8 or length > min(MAX_HEADER, data.size - 8):
        raise FileError(
            f"{path}: is no safetensors file, or was not downloaded whole: its header would be "
            f"{length} bytes long; download it again"
        )
    header = from_json(data[8 : 8 + length].tobytes(), f"{path}: its header", FileError, "download it again", once)
    try:
        header.pop("__metadata__", None)
        entries = [(*map(int, e["data_offsets"]), name, str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise FileError(f"{path}: its header is not that of a safetensors file; download it again") from None
    body, at, out = data[8 + length :], 0, []
    for start, end, name, kind, shape in sorted(entries):
        if start != at or end < start:
            raise FileError(
                f"{path}: {name} starts at byte {start} of the data, the tensor before it ends at {at}; download it again"
            )
        if end > body.size:
            raise FileError(
                f"{path}: {name} should end at byte {end} of the data, which ends at {body.size}; "
                "was it downloaded whole? Download it again."
            )
        out.append(FolderTensor(name, kind, shape, body[start:end], path))
        at = end
    if at != body.size:
        raise FileError(f"{path}: has {body.size - at} bytes after the last tensor; expected none; download it again")
    return out
