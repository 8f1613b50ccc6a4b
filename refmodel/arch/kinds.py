"""The kinds of blocks: what a kind is called, what it remembers, and the metadata that says which block is of which kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import DType
from ..forward.state import KeyValues, Recurrent, State
from ..gguf.metadata import Metadata
from .hparams import Hparams


@dataclass(frozen=True)
class Kinds:
    """How files of an architecture say what kind each block has.

    listed     key of a list, one value for each block: bools, or numbers
    kind       the kind that is listed as true, or as 0
    both       whether llama.cpp needs blocks of both kinds
    reader     the llama.cpp that reads the list, from the sources that llama-cpp-python's releases carry
    interval   key of the interval; every interval-th block of the trunk is of the other kind. Empty: there is no interval, and the
               list is of numbers, 0 for a block of the listed kind
    default    the interval where the key is absent
    only       key of a number for blocks of the listed kind only; where there are none it becomes 0, or llama.cpp aborts
    """

    listed: str
    kind: str
    both: bool
    reader: str
    interval: str = ""
    default: int = 0
    only: str = ""


def always_attention(hp: Hparams, index: int) -> str:
    """The kind of every block where all are alike: attention."""
    return "attention"


def delta_or_attention(hp: Hparams, index: int) -> str:
    """The kind of a block of a hybrid, by its index in the file: delta or attention."""
    return "delta" if hp.recurrent[index] else "attention"


def keys_and_values(hp: Hparams, index: int, dtype: DType) -> KeyValues:
    """What a position with a block of attention remembers before the first token: no keys and no values yet."""
    return KeyValues(hp.n_head_kv, hp.head_dim)


def recurrent_or_keys_and_values(hp: Hparams, index: int, dtype: DType) -> State:
    """What a position with a block of a hybrid remembers before the first token.

    A recurrent block has zeros of that dtype, [K-1, C] and [Hv, Dv, Dk]; another block has no keys and values yet.
    """
    if not hp.recurrent[index]:
        return keys_and_values(hp, index, dtype)
    conv = np.zeros((hp.d_conv - 1, hp.conv_dim), dtype)
    return Recurrent(conv, np.zeros((hp.n_v_head, hp.d_state, hp.d_state), dtype))


def interval_of(kinds: Sequence[str], kind: str, preferred: int) -> int | None:
    """An interval that gives exactly these kinds, block by block; the preferred one if it does. None if no interval does."""
    for interval in (preferred, *range(1, len(kinds) + 2)):
        if interval > 0 and all((found == kind) == ((i + 1) % interval != 0) for i, found in enumerate(kinds)):
            return interval
    return None


def interval_without_list(md: Metadata, arch: str, how: Kinds) -> int:
    """The interval that a runtime takes for a copy if it reads no list; the list may be stored under the interval's key.

    MetadataError as for `interval_in`.
    """
    return how.default if how.listed == how.interval else interval_in(md, arch, how)


def interval_in(md: Metadata, arch: str, how: Kinds) -> int:
    """The interval in the metadata; the default where there is none, or where a list is stored under that key.

    MetadataError if the value is neither an integer nor a list.
    """
    key = f"{arch}.{how.interval}"
    return how.default if key in md and md.fields[key].item is not None else md.int(key, how.default)
