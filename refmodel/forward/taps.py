"""Taps: who looks at a forward pass while it runs."""

from collections.abc import Callable

from ..arrays import F

Tapper = Callable[[str, F], F]
"""A function (name, x) -> array that a forward pass calls with every intermediate.

name  llama.cpp's: `Qcur-3` at position 3, `Kcur-3#1` the second node of that name there, `result_output` outside of blocks
x     the intermediate, tokens first; read it, copy it, but do not change it in place

The pass goes on with the array that the call returns, of the same shape and dtype: a tapper may record, compare, or replace.
"""


def silent(name: str, x: F) -> F:
    """The tapper of a pass that is not traced: every intermediate stays as it is."""
    return x


def in_call(name: str, call: int) -> str:
    """The name of a tap in call number `call` of a session: `name@call`; in the first call, number 0, `name`."""
    return f"{name}@{call}" if call else name
