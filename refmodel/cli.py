"""The command line: errors become one line and an exit status; each command has a file in commands/.

Exit status: 0 done and within tolerance, 1 out of tolerance or not proved, 2 could not do it, 130 after Ctrl-C.
"""

import gc
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from . import check_links
from .commands.demo import demo
from .commands.diff import diff
from .commands.faults import faults
from .commands.golden import app as golden
from .commands.info import info
from .commands.match import app as dumps
from .commands.oracle import oracle
from .commands.route import route
from .commands.run import run
from .commands.start import start
from .commands.surgery import surgery
from .commands.sweep import sweep
from .commands.trace import trace
from .commands.verify import verify
from .commands.version import version
from .commands.warmup import warmup
from .errors import RefmodelError
from .report.console import err

app = typer.Typer(
    pretty_exceptions_enable=False,
    help="Run GGUF language models step by step in NumPy and Numba; find the operation where another program differs; "
    "run layers in any order, write files that do so, and prove them.",
    epilog="New here? `refmodel demo` shows everything in a minute. The exit status is 0 if all is well, 1 if a comparison or "
    "a proof failed, 2 if the command could not be carried out.",
)
for command in (demo, info, run, diff, faults, trace, route, surgery, verify, oracle, warmup, version):  # as a newcomer needs them
    app.command()(command)
app.add_typer(golden, name="golden")
app.add_typer(dumps, name="dumps")
app.add_typer(sweep, name="sweep")
app.callback(invoke_without_command=True)(start)


def ended(number: int, frame: FrameType | None) -> NoReturn:
    """A request to end, as Ctrl-C is one: what was begun is removed."""
    sys.exit(128 + number)


def fail(message: str) -> NoReturn:
    """One line, exit status 2."""
    err.print(f"refmodel: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(2)


def main() -> None:
    """Run the command that the words of the command line name."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, ended)
    gc.set_threshold(100_000, 50, 100)  # nothing that a start makes is garbage: looking for it took a quarter of the time
    try:
        check_links()
        app()
    except RefmodelError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # a fault of ours; 1 would say "out of tolerance" to a script
        traceback.print_exc()
        sys.exit(2)
    finally:
        gc.freeze()  # nor is it worth a last search


if __name__ == "__main__":
    main()
