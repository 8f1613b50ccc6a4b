"""A way for two tokens and more: `vec_dot`, with a block taken apart once for two tokens."""

from ..language.compile_time import maker
from . import vec_dot
from .vec_dot import ROWS, SCRATCH, STREAMS_UP_TO, tokens_at_once

TOKENS = 2
__all__ = ["ROWS", "SCRATCH", "STREAMS_UP_TO", "TOKENS", "driver", "tokens_at_once"]


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return vec_dot.of_tokens(kind, path, TOKENS)
