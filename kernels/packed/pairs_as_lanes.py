"""A way for a few tokens: `rows_as_lanes`, with a block taken apart once for two tokens."""

from ..language.compile_time import maker
from . import rows_as_lanes
from .rows_as_lanes import ROWS, SCRATCH, STREAMS_UP_TO, tokens_at_once

TOKENS = 2
__all__ = ["ROWS", "SCRATCH", "STREAMS_UP_TO", "TOKENS", "driver", "tokens_at_once"]


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return rows_as_lanes.of_tokens(kind, path, TOKENS)
