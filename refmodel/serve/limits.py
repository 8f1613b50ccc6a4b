"""What a client may take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one client, and all together, may take.

    body      bytes of a request
    tokens    of prompt and text together, in one sequence
    parallel  sequences that are computed at once
    waiting   requests that wait for their turn; more are refused
    seconds   from a request's arrival to the end of its answer
    patience  seconds that a client may take to send its request, or to take a piece of the answer
    """

    body: int = 4 << 20
    tokens: int = 4096
    parallel: int = 64
    waiting: int = 256
    seconds: float = 600.0
    patience: float = 30.0
