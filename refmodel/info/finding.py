"""What an audit of a file finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something about a file's numbers that a sound file does not have.

    code      one word for programs
    tensors   the tensors that it is about
    measured  what was measured, with its number
    normal    what it is in a sound file: the range, and where that comes from
    means     what it usually means, and what to do
    faults    the faults that make it, by number
    """

    code: str
    tensors: tuple[str, ...]
    measured: str
    normal: str
    means: str
    faults: tuple[str, ...] = ()
