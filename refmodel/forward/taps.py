"""Taps: who looks at a forward pass while it runs."""

from collections.abc import Callable

from ..arrays import F

Tapper = Callable[[str, F], F]
"""Whoever looks at intermediates: called with llama.cpp's name and the array. The pass goes on with what the call returns, so a
tapper may record, compare, or replace. Arrays must not be changed in place."""


def silent(name: str, x: F) -> F:
    """Nobody looks."""
    return x


def in_call(name: str, call: int) -> str:
    """The name of a tap in the call-th call of a session: the first call's names are bare."""
    return f"{name}@{call}" if call else name
