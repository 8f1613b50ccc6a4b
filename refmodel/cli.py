"""The command line: errors become one line and an exit status; each command has a file in commands/.

Exit status: 0 done and within tolerance, 1 out of tolerance or not proved, 2 could not do it, 130 after Ctrl-C, 141 if nobody reads
the output any more (128 and the number of the signal, as a shell has them).
"""

import gc
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Any, NoReturn

import typer

from . import check_links
from .commands.anatomy import anatomy
from .commands.demo import demo
from .commands.diagnose import diagnose
from .commands.diff import diff
from .commands.faults import faults
from .commands.golden import app as golden
from .commands.info import info
from .commands.logits import write
from .commands.match import app as dumps
from .commands.oracle import oracle
from .commands.route import route
from .commands.run import run
from .commands.serve import serve
from .commands.start import start
from .commands.surgery import surgery
from .commands.sweep import sweep
from .commands.trace import trace
from .commands.verify import verify
from .commands.version import version
from .commands.warmup import warmup
from .errors import RefmodelError
from .report.console import err, out, shown, streams

app = typer.Typer(
    pretty_exceptions_enable=False,
    help="Run GGUF language models step by step in NumPy and Numba; find the operation where another program differs; "
    "run layers in any order, write files that do so, and prove them.",
    epilog="New here? `refmodel demo` shows everything in a minute. The exit status is 0 if all is well, 1 if a comparison or "
    "a proof failed, 2 if the command could not be carried out.",
)
# as a newcomer needs them
for command in (demo, info, run, serve, diff, faults, diagnose, trace, anatomy, route, surgery, verify, oracle, warmup, version):
    app.command()(command)
app.add_typer(golden, name="golden")
dumps.command()(write)
app.add_typer(dumps, name="dumps")
app.add_typer(sweep, name="sweep")
app.callback(invoke_without_command=True)(start)

BAD_WORDS: Any = typer.BadParameter.__mro__[2]  # click's ClickException, which typer has as its own since 0.25
LONGEST = 1500  # characters of an error


def ended(number: int, frame: FrameType | None) -> NoReturn:
    """A request to end, as Ctrl-C is one: what was begun is removed."""
    sys.exit(128 + number)


def fail(message: str) -> int:
    """Print one line; the exit status 2."""
    err.print(f"refmodel: {shown(message, LONGEST)}".replace("\n", "\\n"), style="red", soft_wrap=True)
    return 2


def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Print a warning as one line, in place of warnings.showwarning."""
    err.print(f"warning: {shown(str(message), LONGEST)}".replace("\n", "\\n"), style="yellow", soft_wrap=True)


def of_words(error: Any) -> str:
    """What is wrong with the words of a command line, in one line, and where help is."""
    where = error.ctx.command_path if getattr(error, "ctx", None) else "refmodel"
    return f"{error.format_message().rstrip('.')}; {where} --help lists what there is"


def of_system(error: OSError) -> str:
    """What the system refused, in one line. What has no file is printed: files are opened by name."""
    where = error.filename if isinstance(error.filename, str) and error.filename else "what is printed"
    return f"{where}: {error.strerror or error}"


def carried_out() -> int:
    """Carry out the command that the words name. Returns its exit status; what went wrong is said in one line."""
    try:
        check_links()
        status = app(standalone_mode=False)
        out.file.flush()
    except BAD_WORDS as error:
        return fail(of_words(error))
    except RefmodelError as error:
        return fail(str(error))
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except MemoryError as error:
        return fail(f"memory ran out ({str(error)[:200] or 'no more is free'}); take a smaller model, or fewer tokens")
    except OSError as error:
        return fail(of_system(error))
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    return status if isinstance(status, int) else 0


def last_words(status: int) -> int:
    """Write out what is still buffered. Returns the exit status: another one if that fails where all was well."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError as error:
            status = status or (128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python tries once more, and complains
    return status


def main() -> None:
    """Run the command that the words of the command line name."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, ended)
    gc.set_threshold(100_000, 50, 100)  # nothing that a start makes is garbage: looking for it took a quarter of the time
    streams()
    warnings.showwarning = warn
    status = 2  # also for a fault of ours; 1 would say "out of tolerance" to a script
    try:
        status = carried_out()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else status
    except OSError:
        pass  # an error that cannot be printed
    except Exception:
        traceback.print_exc()
    finally:
        gc.freeze()  # nor is it worth a last search
    sys.exit(last_words(status))


if __name__ == "__main__":
    main()
