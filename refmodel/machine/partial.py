"""Files and folders in the making, under temporary names (.NAME.….partial), which the next run removes if their maker was killed.

Whoever makes one holds a lock on it, which the system takes away with the process; what nobody holds is left over.
"""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NAME = re.compile(r"\..+\.[0-9a-f]{12}\.partial", re.DOTALL)


def name_for(path: Path) -> Path:
    """A new temporary name next to a path."""
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.partial")


def create(path: Path) -> BinaryIO:
    """A new, locked file of this name. FileExistsError if there is one: it is not ours."""
    while True:
        file = path.open("xb")
        held(file.fileno())
        if path.exists():  # else another run took it for left over before the lock was there
            return file
        file.close()


@contextmanager
def folder(path: Path) -> Iterator[None]:
    """Around the making of a new folder of this name, locked; FileExistsError if there is one."""
    path.mkdir()
    with locked(path):
        yield


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private folder for what is not to stay, removed at the end; before, those that killed processes left are removed."""
    place = Path(tempfile.gettempdir())
    remove_left_over(place)
    while True:
        path = name_for(place / "refmodel")
        path.mkdir(mode=0o700)
        with locked(path):
            if not path.is_dir():  # another run took it for left over before the lock was there
                continue
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
            return


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a folder, where the system opens folders."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, FileNotFoundError):
        yield
        return
    try:
        held(descriptor)
        yield
    finally:
        os.close(descriptor)


def held(descriptor: int, wait: bool = True) -> bool:
    """Lock an open file or folder; False if another process holds it, and `wait` is not set. A system without locks has none."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return wait  # without locks nothing is known to be left over
    return True


def remove_left_over(folder: Path) -> None:
    """Remove what killed processes left in a folder. What cannot be removed stays."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if NAME.fullmatch(path.name)]:
            with suppress(OSError):
                remove_if_left_over(path)


def remove_if_left_over(path: Path) -> None:
    """Remove one file or folder, if no process holds it. OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))  # Windows has neither
    try:
        if held(descriptor, wait=False):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)
