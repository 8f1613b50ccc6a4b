"""The two consoles: what a command answers, and what it says meanwhile."""

import sys

from rich.console import Console

out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own
err = Console(stderr=True, highlight=False)
