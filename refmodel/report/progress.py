"""Progress bars; on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    pass


@contextmanager
def watching(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A spinner that names the tensor being made. It is shown on a terminal only, and is removed at the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda name: progress.update(task, description=f"{what} {name}")


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; call it with the name of each finished step. Without a terminal it prints one line a step."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        progress.refresh()

        def seen(name: str) -> None:
            progress.update(task, advance=1, description=f"{what}: {name}")
            if not console.is_terminal:
                console.print(f"{what}: {name}", style="dim", markup=False)

        yield seen


@contextmanager
def copying(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of bytes; call it with the bytes just copied and the total. It is shown on a terminal only."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("copying", total=None)
        yield lambda copied, total: progress.update(task, advance=copied, total=total)


@contextmanager
def sweeping(console: Console) -> Iterator[Callable[[str, int], None]]:
    """A progress bar; call it with the name of each finished piece and how many are left. It is shown on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("routes", total=None)
        done = 0

        def seen(name: str, left: int) -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, total=done + left, description=f"routes: {name}")

        yield seen
