"""Where compiled kernels are kept: in the user's cache folder, under a digest of the kernels' sources.

Numba's own cache looks at the file of a kernel, not at what that file imports; a folder for each state of all sources is safe.
Only the kernels of refmodel are kept here: other code in the process that uses Numba keeps its settings.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .files import PACKAGE, user_folder
from .partial import temporary_folder

SOURCES = PACKAGE / "kernels"
KEPT = 4  # digests that stay, this one included


def base() -> Path:
    """The folder of all digests: NUMBA_CACHE_DIR where the user has set it, else one in the user's cache folder."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    return user_folder() / "kernels"


def digest() -> str:
    """A name for this state of all kernels, compiled by this Numba: 16 hexadecimal digits."""
    import numba

    seen = hashlib.sha256(numba.__version__.encode())
    for path in sorted(SOURCES.rglob("*.py")):
        seen.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()[:16]


@cache
def folder() -> Path:
    """The folder of this digest, made if it is not there. If it cannot be written: a temporary folder, and a warning."""
    try:
        path = base() / digest()
        fresh = not path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        os.utime(path)  # used just now
    except OSError as error:
        where = error.filename or "a cache folder"
        warnings.warn(
            f"{where} cannot be written ({error.strerror}), so that kernels are compiled again in every run; "
            "set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that can",
            stacklevel=2,
        )
        return temporary()
    if fresh:
        remove_old(path)
    return path


def temporary() -> Path:
    """A private folder for this process and those that it starts; removed when it ends."""
    import atexit

    stack = contextlib.ExitStack()
    os.environ["NUMBA_CACHE_DIR"] = str(stack.enter_context(temporary_folder()))
    atexit.register(stack.close)
    path = base() / digest()
    path.mkdir()
    return path


def remove_old(new: Path) -> None:
    """Remove the folders of all digests but `new` and the ones used last. A process that uses a removed one compiles again."""
    others = [path for path in new.parent.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name) and path != new]
    with contextlib.suppress(FileNotFoundError):  # another process removes them too
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def of_kernels() -> Iterator[None]:
    """Around an import: the kernels that it defines are kept in `folder`."""
    import numba
    from numba.core import caching

    before = numba.config.CACHE_DIR, caching.IndexDataCacheFile
    numba.config.CACHE_DIR, caching.IndexDataCacheFile = str(folder()), shared(caching.IndexDataCacheFile)
    try:
        yield
    finally:
        numba.config.CACHE_DIR, caching.IndexDataCacheFile = before


@cache
def shared(of_one_process: Any) -> Any:
    """A class for Numba's files of one kernel that several processes may save at once, made from Numba's own class.

    With Numba's own, two processes that save different signatures of one kernel may choose the same file, and then the index
    names the code of one for the other. Here a file has a name of its own, and a lock keeps one index from undoing another.
    """

    def readable(load: Callable[[], Any]) -> Any:
        """What a file holds; None, as if it were not there, for one that was damaged: it is compiled again."""
        try:
            return load()
        except Exception:  # pickle raises what it likes
            return None

    class Shared(of_one_process):  # type: ignore[misc]
        def save(self, key: Any, data: Any) -> None:
            try:
                with locked(folder() / "lock") as alone:
                    if alone:
                        remove_unfinished(Path(self._cache_path))
                    super().save(key, data)
            except OSError as error:  # a full disk, or a folder that was taken away: it is compiled again by the next run
                warnings.warn(f"{self._cache_path}: a kernel cannot be kept: {error.strerror or error}", stacklevel=2)

        def _data_name(self, number: int) -> str:
            return f"{self._index_name.removesuffix('.nbi')}.{uuid.uuid4().hex[:16]}.nbc"

        def _load_index(self) -> Any:
            return readable(super()._load_index) or {}

        def _load_data(self, name: str) -> Any:
            return readable(lambda: super(Shared, self)._load_data(name))

    return Shared


def remove_unfinished(kernels: Path) -> None:
    """Remove what Numba was writing when its process was killed. Whoever calls this holds the lock: nobody writes now."""
    for path in kernels.glob("*.tmp.*"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait until no other process holds the lock; False on a platform or file system without such locks, which goes on without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        alone = False
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone
