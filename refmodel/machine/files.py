"""Files that appear whole under their names or not at all, whatever ends the program that writes them; where a cache goes."""

import difflib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO, Generic, TypeVar

from ..errors import FileError
from .partial import create, name_for, remove_left_over

T = TypeVar("T")
State = tuple[int, int, int, int]
PACKAGE = Path(__file__).parent.parent  # the folder of refmodel itself, with golden/ and kernels/ in it
MOST = 1 << 30  # bytes of a file that is read whole; what is larger is mapped
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def user_folder() -> Path:
    """The folder where the platform keeps what a program can make again for its user; it may not exist yet.

    FileNotFoundError for a user without a home, such as a number that a container was started with.
    """
    given = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    if named := os.environ.get(given):
        return Path(named) / "refmodel"
    try:
        return Path.home() / usual / "refmodel"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, str(error)) from None


def state_of(descriptor: int) -> State:
    """What tells an open file from another one, and from itself after it was written: device, inode, size, times in nanoseconds."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_regular(path: Path) -> int:
    """The bytes of a file. FileError if it is missing, or is no regular file: opening a pipe would wait for its writer."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: cannot be opened: {why}; check the path and who may read it") from None
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path}: cannot be opened: it is not a regular file; give the path of one")
    return status.st_size


def contents(path: Path, most: int = MOST) -> bytes:
    """All bytes of a file that somebody else made, at most `most`. FileError if it cannot be read, is too large, or is no file."""
    if (size := check_regular(path)) > most:
        raise FileError(f"{path}: has {size:,} bytes; a file of this kind has at most {most:,}; name the right one")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}; check who may read it") from None


def text_of(path: Path, most: int = MOST, errors: str = "strict") -> str:
    """The text of such a file, in UTF-8. FileError as `contents`, and for bytes that are not UTF-8 where `errors` is strict."""
    try:
        return contents(path, most).decode("utf-8", errors)
    except UnicodeDecodeError:
        raise FileError(f"{path}: is not UTF-8; expected text; save it as UTF-8") from None


@contextmanager
def whole(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Open one new file for each path, under a temporary name next to it; at the end of the block all get their own names.

    They are synced first, and the first path is renamed last: of files that are opened by the first of them, a set that is
    not complete cannot be opened. An error or Ctrl-C removes what was written. A kill may leave temporary files
    (.NAME.….partial), which the next run removes, never a file under one of the paths that is not whole. FileError names the path
    that cannot be written.
    """
    for parent in {path.parent for path in paths}:
        remove_left_over(parent)
    partial = [name_for(path) for path in paths]
    opened: list[BinaryIO] = []
    placed: list[Path] = []
    try:
        for name in partial:
            opened.append(create(name))
        yield opened
        for file in opened:
            synced(file)
            file.close()
        if len(paths) > 1:
            paths[0].unlink(missing_ok=True)  # before its other parts are replaced
        for name, path in reversed(list(zip(partial, paths, strict=True))):
            os.replace(name, path)
            placed.append(path)
        for folder in {path.parent for path in paths}:
            sync_folder(folder)
    except BaseException as error:
        for name in [*partial[: len(opened)], *(placed if len(placed) < len(paths) else [])]:
            name.unlink(missing_ok=True)
        for file in opened:
            with suppress(OSError):  # closing writes what is still buffered, to a disk that may be full
                file.close()
        raise not_written(error, paths[0], partial) from None


def not_written(error: BaseException, path: Path, partial: Iterable[Path]) -> BaseException:
    """The error to raise: a FileError about `path` if the disk is full or a temporary file failed, else the error itself."""
    failed = str(getattr(error, "filename", "")).startswith(tuple(map(str, partial)))
    if isinstance(error, OSError) and error.errno == errno.EFAULT:
        return FileError(f"{path}: was not written: a file that was copied became shorter meanwhile; get it whole, and run again")
    if isinstance(error, OSError) and (error.errno in FULL or failed):
        return FileError(f"{path}: cannot be written: {error.strerror}; no part of it was left; make room, or name another place")
    return error


def synced(file: BinaryIO) -> None:
    """Write what is buffered, and make a file's bytes durable. OSError if the disk is full."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(path: Path, sources: Iterable[Path]) -> None:
    """FileError if `path` cannot be written, or is one of `sources` under whatever name: itself, a link to it, a hard link."""
    if not path.parent.is_dir():
        raise FileError(f"{path}: the folder {path.parent} does not exist; make it first")
    try:
        found = path.stat()
    except OSError:
        return  # nothing there, or a link to nothing: the link is replaced
    for source in sources:
        try:
            if os.path.samestat(found, source.stat()):
                raise FileError(f"{path}: is the file that is read; give the output another name")
        except FileNotFoundError:
            continue
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{path}: is " + ("a folder" if path.is_dir() else "not a regular file") + "; give the output another name")


class Beside(Thread, Generic[T]):
    """A value that a thread computes during other work; an interrupted command does not wait for it.

    work  called at once, without arguments, in the new thread
    """

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do the work and keep its result, or its error; the thread calls this."""
        try:
            self.outcome = self.work()
        except BaseException as error:
            self.error = error

    def value(self) -> T:
        """Wait for the work, and return what it returned; raises what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
        return self.outcome


def nearest(path: Path) -> Path | None:
    """The file or folder with the name most like that of `path`, in its folder; None if no name is like it."""
    folder = path.parent
    names = [found.name for found in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return folder / close[0] if close else None
