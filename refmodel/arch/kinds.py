"""The kinds of blocks of a hybrid, and the metadata that says which block is of which kind."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..gguf.metadata import Metadata


@dataclass(frozen=True)
class Kinds:
    """How files of an architecture say of which kind each block is.

    listed     key of a list of bools, one for each block
    kind       the kind that is listed as true
    interval   key of the interval; every interval-th block of the trunk is of the other kind
    default    the interval where the key is absent
    both       whether llama.cpp needs blocks of both kinds
    reader     which llama.cpp reads the list; found in the sources that llama-cpp-python's releases carry
    only       key of a number for blocks of the listed kind alone; where there are none it becomes 0, or llama.cpp aborts
    """

    listed: str
    kind: str
    interval: str
    default: int
    both: bool
    reader: str
    only: str = ""


DELTA_NET = Kinds(
    "attention.recurrent_layers",
    "delta",
    "full_attention_interval",
    4,
    both=True,
    reader="7c158fb (build 9518, llama-cpp-python 0.3.26) and later read the list, 210a657 (0.3.25) does not; "
    "their converter writes it since pull request 28208",
)


PATTERN = "attention.sliding_window_pattern"  # a list, or the interval itself


SLIDING = Kinds(
    PATTERN,
    "sliding",
    PATTERN,
    6,
    both=False,
    reader="0c1e570 (llama-cpp-python 0.3.36) reads the list; up to 4df29be (0.3.35) a list is passed over and the interval is 6",
    only="attention.sliding_window",
)


KINDS = {"qwen35": DELTA_NET, "qwen35moe": DELTA_NET, "qwen3next": DELTA_NET, "gemma3": SLIDING}


HYBRID = {name for name, how in KINDS.items() if how.both}


def interval_of(kinds: Sequence[str], kind: str, preferred: int) -> int | None:
    """An interval by which exactly these kinds arise, the preferred one if it does; None if there is none."""
    for interval in (preferred, *range(1, len(kinds) + 2)):
        if interval > 0 and all((found == kind) == ((i + 1) % interval != 0) for i, found in enumerate(kinds)):
            return interval
    return None


def interval_without_list(md: Metadata, arch: str) -> int:
    """What a runtime that reads no list takes for the interval of a copy, in which the list may stand in the interval's place."""
    how = KINDS[arch]
    return how.default if how.listed == how.interval else interval_in(md, arch)


def interval_in(md: Metadata, arch: str) -> int:
    """The interval that the metadata states, or the default where it states none, or has a list under that key."""
    how, key = KINDS[arch], f"{arch}.{KINDS[arch].interval}"
    return how.default if key in md and md.fields[key].item is not None else md.int(key, how.default)
