"""`refmodel` without a command: what one can do next."""

import typer

from ..report.console import out

NEXT = """\
refmodel runs GGUF language models step by step, and finds the operation where another program differs.

Try it offline, with the small trained model that comes with it:

  refmodel demo                                  all of it in a minute
  refmodel run austen -p "Emma was"              write text
  refmodel info austen                           what each tensor of the file is
  refmodel diff austen --against austen-trace    every tensor against what llama.cpp recorded
  refmodel run austen -p "Emma was" --route blocks:5,7    the same file with two blocks run twice

For a file of your own, write its path in place of `austen`. All commands: refmodel --help"""


def start(context: typer.Context) -> None:
    """Print what one can do next, if no command is named."""
    if context.invoked_subcommand is None:
        out.print(NEXT, markup=False)
