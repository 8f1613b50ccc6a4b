"""One gate for calls into libraries: what they raise because of what a file says becomes an error of ours, in one line.

A library that is handed a stranger's data raises what it likes: RuntimeError, a bare Exception, a panic of Rust, which is no
Exception at all. tests/test_house.py holds that none of these libraries is called outside of this gate.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import RefmodelError

OURS = (RefmodelError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit)  # what passes as it is


@contextmanager
def handed(library: str, where: str, error: type[RefmodelError], cure: str, fault: str = "") -> Iterator[None]:
    """Around a call into a library that is handed what a file says. Whatever it raises becomes `error`.

    library  its name, for the message
    where    the file, and the key or the tensor in it
    cure     what to do
    fault    what is wrong then, where that is known better than that the library cannot read it
    """
    try:
        yield
    except OURS:
        raise
    except BaseException as raised:
        why = " ".join(str(raised).split())[:120] or type(raised).__name__
        raise error(f"{where}: {fault or f'cannot be read by {library}'} ({why}); {cure}") from None


def from_json(
    text: str | bytes,
    where: str,
    error: type[RefmodelError],
    cure: str,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value of a JSON text. `error`, which names `where` and the `cure`, for a text that is none, or is nested too deep.

    pairs  makes an object of its keys and values, and may raise ValueError; None for a dict, whose last of two equal keys counts
    """
    with handed("json", where, error, cure, "is not JSON"):
        return json.loads(text, object_pairs_hook=pairs)


@contextmanager
def expecting(where: str, error: type[RefmodelError], cure: str) -> Iterator[None]:
    """Around the reading of a value whose shape a stranger chose: a part that is missing or of another kind becomes `error`.

    where  the file, and the part of it
    cure   what to do
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as raised:
        why = f"{type(raised).__name__}: {' '.join(str(raised).split())[:80]}"
        raise error(f"{where}: has another shape than expected ({why}); {cure}") from None
