"""The sha256 of files. That of large ones is remembered, for as long as nothing says that they were changed.

Reading a file of 17 GB for its sha256 takes longer than to copy it, and every proof and every trace asks for it.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import FileError
from .files import user_folder, whole

WORTH = 64 << 20  # bytes from which a digest is remembered
KEPT = 256  # digests that stay, the last used
SETTLED = 2  # seconds after which another change of a file has another time, on the coarsest of common file systems


def sha256_of(paths: Sequence[Path]) -> str:
    """Hexadecimal digest over the bytes of all files, in order; remembered for large files that have not changed."""
    status, before, started = [path.stat() for path in paths], identity(paths), time.time()
    if known := recall(before):
        return known
    found = hashed(paths)
    settled = all(started - max(s.st_mtime, s.st_ctime) > SETTLED for s in status)
    if settled and sum(s.st_size for s in status) >= WORTH and identity(paths) == before:
        remember(before, found)
    return found


def identity(paths: Sequence[Path]) -> str:
    """A text that changes if a file is written, replaced or moved.

    The time of the inode (ctime) cannot be set back as mtime can.
    """
    status = [(path.resolve(), path.stat()) for path in paths]
    return repr([(str(path), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in status])


def hashed(paths: Sequence[Path]) -> str:
    """Hexadecimal digest over the bytes of all files, in order; every byte is read."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as f:
            while piece := f.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest()


def remembered() -> Path:
    """The folder with one small file for each digest. FileNotFoundError if the user has no home."""
    return user_folder() / "sha256"


def entry_of(files: str) -> Path:
    """The file that remembers the digest of files of this identity; it may not exist. FileNotFoundError if the user has no home."""
    return remembered() / hashlib.sha256(files.encode()).hexdigest()


def recall(files: str) -> str | None:
    """The digest of files of this identity; None if it is not remembered."""
    with suppress(OSError, UnicodeDecodeError):
        known = (entry := entry_of(files)).read_text()
        if re.fullmatch("[0-9a-f]{64}", known):
            with suppress(OSError):  # a folder that can only be read
                entry.touch()  # used just now
            return known
    return None


def remember(files: str, digest: str) -> None:
    """Keep the digest of files of this identity. If the folder cannot be written, nothing happens: it can be computed again."""
    with suppress(OSError, FileError):
        entry = entry_of(files)
        entry.parent.mkdir(parents=True, exist_ok=True)
        with whole([entry]) as (file,):
            file.write(digest.encode())
        for old in sorted(entry.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
            old.unlink(missing_ok=True)
