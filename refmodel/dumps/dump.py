"""What a program wrote about one run: arrays under its own names, and whatever it says of the tokens.

Nothing is decoded before it is asked for, and no count, offset or size is believed before it is compared with the bytes there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from ..arrays import Bytes, F, Ints
from ..errors import DumpError

# Names of number formats, as safetensors and as other programs have them -> NumPy's; BF16 is read as its upper half of a float32
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
}
WORDS = {"float64": "F64", "float32": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "double": "F64", "float": "F32"}
WORDS |= {"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"}
# The most significant bits of a number: what a format can hold
BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}


@dataclass(frozen=True)
class Numbers:
    """One array of a dump.

    shape   of the whole tensor, also where only some of its numbers are there
    dtype   the format of its numbers, a key of DTYPES
    read    gives the numbers: in `shape`, or [k] of those that are there
    at      [k] which numbers are there, as places in the flat tensor; None for all
    log     they are logarithms (natural) of probabilities, not logits
    least   log-probabilities below this were written as this: a number for each row of the last axis; None for no such limit
    step    the largest error that writing them down made: one number, or an array that broadcasts to them
    total   the sum of all numbers, where a program printed it; NaN if not
    rows    [k] which tokens of the call the first axis has; None for the last ones, or all
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], F]
    at: Ints | None = None
    log: bool = False
    least: F | None = None
    step: F | float = 0.0
    total: float = np.nan
    rows: Ints | None = None

    @property
    def whole(self) -> bool:
        """Whether every number is there as it was computed, so that a pass can go on with them."""
        return self.at is None and not self.log and not np.any(self.step)


@dataclass(frozen=True)
class Said:
    """One position of a server's answer.

    chosen  the token that followed: its id, or the bytes of its text
    likely  token -> its log-probability (natural)
    """

    chosen: int | bytes
    likely: Mapping[int | bytes, float]


@dataclass(frozen=True)
class Dump:
    """One dump.

    path     a file or a folder
    kind     a phrase for reports: what format it has
    arrays   the program's own name -> array, in the program's order
    calls    the token ids of each call; None if it does not say
    about    what else it says: `sha256` of the model's file, `route`, `who` made it, `numerics`
    unread   files that no reader knows, by name -> why
    printed  whether it is a log of llama.cpp, where a name's second node of a block is `name#1`
    answer   what a server said after the prompt, position by position
    apart    each call is a sequence of its own
    """

    path: Path
    kind: str
    arrays: Mapping[str, Numbers]
    calls: Sequence[Sequence[int]] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    printed: bool = False
    answer: Sequence[Said] = ()
    apart: bool = False


def numbers(data: Bytes, dtype: str, shape: Sequence[int], where: str) -> Numbers:
    """An array over bytes that lie in a mapping: `data` are exactly its bytes, row-major, little-endian.

    DumpError if the shape does not fit the bytes, or the format is not known.
    """
    if dtype not in DTYPES:
        raise DumpError(f"{where}: has numbers of type {dtype}; known are {', '.join(DTYPES)}; save it as float32")
    size, width = prod(shape), int(DTYPES[dtype][-1])
    if any(n < 0 for n in shape) or size * width != data.size:
        raise DumpError(f"{where}: {list(shape)} numbers of {width} bytes do not fit its {data.size} bytes; write the file again")
    return Numbers(tuple(shape), dtype, lambda: decoded(data, dtype).reshape(shape))


def decoded(data: Bytes, dtype: str) -> F:
    """Bytes as numbers: floats as they are, bfloat16 as float32, integers as float64; without a copy where possible."""
    raw = np.frombuffer(data, DTYPES[dtype])
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float64) if dtype[0] in "IU" else raw
