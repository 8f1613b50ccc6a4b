"""Progress bars: on a terminal, and in the output of a notebook's cell; nowhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from .console import shown

REDRAWN = 0.1  # seconds between two drawings in a notebook


class Bar(Protocol):
    """A progress bar: what is done, of how much, and a word for it; what is not given stays."""

    def __call__(self, done: float, total: float | None, words: str) -> None: ...


class Cell:
    """A bar in the output of a notebook's cell: one line of HTML that is drawn anew, and taken away at the end."""

    def __init__(self, words: str) -> None:
        from IPython.display import HTML, display

        self.html, self.drawn = HTML, 0.0
        self.place: Any = display(HTML(self.line(0, None, words)), display_id=True)

    @staticmethod
    def line(done: float, total: float | None, words: str) -> str:
        """The line; without a total the bar only says that something runs."""
        bar = (
            f'<progress max="{total:g}" value="{done:g}"></progress> {done:,.0f} of {total:,.0f}'
            if total
            else "<progress></progress>"
        )
        return f"<div>{escape(shown(words))} {bar}</div>"

    def __call__(self, done: float, total: float | None, words: str) -> None:
        """Draw it, if it was not drawn just now."""
        now = time.monotonic()
        if now - self.drawn >= REDRAWN:
            self.drawn = now
            self.place.update(self.html(self.line(done, total, words)))

    def close(self) -> None:
        """Take it away."""
        self.place.update(self.html(""))


@contextmanager
def bar(console: Console, words: str, columns: tuple[ProgressColumn, ...], total: float | None = None) -> Iterator[Bar]:
    """A bar where this console is: on its terminal, in a notebook's cell, or nowhere. It is removed at the end."""
    if console.is_jupyter:
        cell = Cell(words)
        try:
            yield cell
        finally:
            cell.close()
        return
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(shown(words), total=total)
        progress.refresh()
        yield lambda done, total, words: progress.update(task, completed=done, total=total, description=shown(words))


def words_column() -> TextColumn:
    """What is done, in words that are no markup."""
    return TextColumn("{task.description}", markup=False)


@contextmanager
def watching(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A spinner that names the tensor being made."""
    columns = (SpinnerColumn(), words_column(), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with bar(console, what, columns) as draw:
        yield lambda name: draw(0, None, f"{what} {name}")


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; call it with the name of each finished step. Without a terminal it prints one line a step."""
    columns = (words_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with bar(console, what, columns, total) as draw:
        done = 0

        def seen(name: str) -> None:
            nonlocal done
            done += 1
            draw(done, total, f"{what}: {name}")
            if not (console.is_terminal or console.is_jupyter):
                console.print(f"{what}: {name}", style="dim", markup=False)

        yield seen


@contextmanager
def copying(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of bytes; call it with the bytes just copied and the total."""
    columns = (words_column(), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with bar(console, "copying", columns) as draw:
        copied = 0

        def seen(more: int, total: int) -> None:
            nonlocal copied
            copied += more
            draw(copied, total, "copying")

        yield seen


@contextmanager
def sweeping(console: Console) -> Iterator[Callable[[str, int], None]]:
    """A progress bar; call it with the name of each finished piece and how many are left."""
    columns = (words_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with bar(console, "routes", columns) as draw:
        done = 0

        def seen(name: str, left: int) -> None:
            nonlocal done
            done += 1
            draw(done, done + left, f"routes: {name}")

        yield seen
