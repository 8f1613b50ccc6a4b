"""Print a reply as its tokens come."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..machine.memory import Peak
from ..report.console import err, out

if TYPE_CHECKING:
    from ..speed.timing import Timing
    from ..text.reply import Reply


def write(
    reply: "Reply", tokens: Iterable[int], read: int, numerics: str, silent: bool = False, timed: "Timing | None" = None
) -> dict[str, Any]:
    """Print a reply as its tokens come, then its speed and whether it loops.

    read    how many tokens were read before it
    silent  print no text

    Returns the figures, as --json prints them.
    """
    start, first = time.perf_counter(), 0.0
    with timed.whole() if timed else nullcontext(), Peak() as memory, err.status(f"reading {read} tokens") as status:
        for text in reply.read(tokens):
            if not first:
                first = time.perf_counter()
                status.stop()
            if not silent:
                out.say(text)
    seconds = time.perf_counter() - first
    figures = {"text": reply.text, "tokens": reply.tokens, "numerics": numerics, "read_seconds": first - start}
    figures |= {"write_seconds": seconds, "peak_anonymous_bytes": memory.bytes}
    if not silent:
        out.say("\n")
        say(reply, read, numerics, first - start, seconds, memory.bytes)
    return figures


def say(reply: "Reply", read: int, numerics: str, reading: float, writing: float, memory: int | None) -> None:
    """Print the speed of a reply (seconds of prefill and of writing), its peak memory in bytes, and whether it loops."""
    written = len(reply.tokens)
    later = f"{(written - 1) / writing:.1f} tokens/s" if written > 1 else "one token"
    peak = f"; peak memory {memory / 1e6:.0f} MB without the mapped weights" if memory else ""
    err.print(f"{read} tokens read in {reading:.2f} s; {written} written, {later} after the first ({numerics}){peak}", style="dim")
    if reply.loop:
        advice = "try --repeat-penalty 1.1, or a --temperature above 0"
        err.print(f"warning: the reply repeats a phrase of {reply.loop} tokens; {advice}", style="yellow")
