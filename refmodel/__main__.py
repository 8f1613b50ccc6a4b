"""`refmodel` and `python -m refmodel`: nothing is imported here before Ctrl-C is prepared, because imports take a moment."""

import os
import signal
from types import FrameType


def stopped(number: int, frame: FrameType | None) -> None:
    """End at once, without a word: nothing was begun."""
    os._exit(128 + number)


def main() -> None:
    """Run the command line. Ctrl-C ends the program while it starts, and is a KeyboardInterrupt for its commands."""
    before = signal.signal(signal.SIGINT, stopped) if signal.getsignal(signal.SIGINT) == signal.default_int_handler else None
    from .cli import main as run

    if before:
        signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
