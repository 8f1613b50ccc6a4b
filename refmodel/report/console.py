"""The two consoles: what a command answers, and what it says meanwhile.

One gate for text: whatever is printed passes `shown`, because names, keys and messages come from files that strangers made. Markup
is off, so that no name can colour or hide a line. tests/test_gates.py holds that nothing else prints.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from .tables import finite

# Control characters but tab and newline; separators of lines; marks that turn the direction of writing; halves of surrogate pairs
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 4000  # characters of a line
OF_A_PIPE = 120  # a pipe has no width of its own


def shown(text: str, longest: int = LONGEST) -> str:
    """Text as a terminal may have it: control characters as escapes (\\x1b), and of a line too long only its two ends.

    longest  characters of a line, newlines not counted
    """
    if len(text) > longest:
        text = "\n".join(ends(line, longest) for line in text.split("\n"))
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def ends(line: str, longest: int) -> str:
    """The two ends of a line that is longer than `longest` characters, and how much is between them; else the line itself."""
    if len(line) <= longest:
        return line
    kept = longest // 2
    return f"{line[:kept]}[... {len(line) - 2 * kept:,} characters ...]{line[-kept:]}"


class Terminal(Console):
    """One of the two consoles: rich's, behind the gate.

    Tables keep to a width in the environment (COLUMNS). Sentences are not broken: a terminal does that, and a program reads them.
    """

    def __init__(self, stderr: bool = False) -> None:
        piped = not stderr and not (sys.stdout and sys.stdout.isatty()) and not os.environ.get("COLUMNS", "").isdigit()
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, width=OF_A_PIPE if piped else None)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text before it is laid out."""
        return super().render_str(shown(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, piece by piece; texts that were not made by `render_str` pass the gate here."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(shown(part.text), part.style)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """A spinner with a text that is no markup."""
        return super().status(Text(shown(status)) if isinstance(status, str) else status, **how)

    def say(self, text: str) -> None:
        """Print text as it comes, without a newline, and at once."""
        self.file.write(shown(text))
        self.file.flush()

    def json(self, value: Any) -> None:
        """Print a value as JSON; NaN and infinities, which JSON does not have, become null."""
        self.file.write(json.dumps(finite(value), indent=1, allow_nan=False) + "\n")

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: the command line ends as other programs do."""
        raise BrokenPipeError


def streams() -> None:
    """Prepare the standard streams: one that is closed is nothing, and what an encoding lacks is printed as an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: IO[str] | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))
        elif reconfigure := getattr(stream, "reconfigure", None):  # a program may have put another object there
            reconfigure(errors="backslashreplace")


out = Terminal()
err = Terminal(stderr=True)
