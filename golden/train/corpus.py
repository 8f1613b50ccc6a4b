"""Jane Austen's six novels: the chapters to learn from, and those that are held out.

The novels (first published 1811 to 1818, public domain) come from the Debian package `r-cran-janeaustenr` (MIT), whose R data
file is unpacked here without R.
"""

import gzip
import hashlib
import re
import subprocess
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import rdata

PACKAGE = "r-cran-janeaustenr"
DIGEST = "cdc42ccb00a2af737ca0e7f58b92eac249f37ab61667dfcabcdea6c84766965b"  # of all paragraphs of 1.0.0-1
END = "<|endoftext|>"
EVERY = 16  # one chapter of so many is held out
EXCERPT = 1500  # characters of each, at least, in held-out.txt


def novels(folder: Path) -> list[list[str]]:
    """The chapters of the six novels, each a list of paragraphs of one line. `folder` keeps the downloaded package."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{PACKAGE}_*.deb")):
        subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=folder, check=True)
    with tempfile.TemporaryDirectory() as unpacked:
        subprocess.run(["dpkg-deb", "-x", str(next(folder.glob(f"{PACKAGE}_*.deb"))), unpacked], check=True)
        data = Path(unpacked) / "usr/lib/R/site-library/janeaustenr/data"
        index = parsed(gzip.decompress((data / "Rdata.rdx").read_bytes()))["variables"]
        archive = (data / "Rdata.rdb").read_bytes()
        books = {str(name): parsed(zlib.decompress(archive[at + 4 : at + size])) for name, (at, size) in index.items()}
    chapters = [chapter for _, lines in sorted(books.items()) for chapter in chapters_of([str(line) for line in lines])]
    digest = hashlib.sha256("\n".join(line for chapter in chapters for line in chapter).encode()).hexdigest()
    if digest != DIGEST:
        raise SystemExit(f"{PACKAGE}: the paragraphs have sha256 {digest}, expected {DIGEST}; the package has another text")
    return chapters


def parsed(serialized: bytes) -> dict[str, tuple[int, int]]:
    """An object that R serialized."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a file type that was never in doubt
        return rdata.conversion.convert(rdata.parser.parse_data(serialized))


def chapters_of(lines: list[str]) -> Iterator[list[str]]:
    """Cut a book at its chapter headings, drop what stands before the first, join the lines of each paragraph."""
    text = "\n".join(line.rstrip() for line in lines).replace("_", "")
    for chapter in re.split(r"^\s*(?:VOLUME [IVX]+\s+)?chapter\s+[\dIVXL]+\.?\s*$", text, flags=re.MULTILINE | re.IGNORECASE)[1:]:
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", chapter)]
        yield [p for p in paragraphs if len(p) > 1 and not p.isupper()]


def excerpt(held: list[str]) -> str:
    """The beginning of each held-out chapter, a few paragraphs, as golden/ keeps it."""
    return "".join(chapter[: chapter.index("\n", EXCERPT) + 1] for chapter in held)


def read(folder: Path) -> tuple[list[str], list[str]]:
    """Chapters to learn from and chapters held out; each one string, its paragraphs separated by line ends."""
    chapters = ["\n".join(chapter) + "\n" for chapter in novels(folder)]
    held = [chapter for i, chapter in enumerate(chapters) if i % EVERY == EVERY // 2]
    return [chapter for i, chapter in enumerate(chapters) if i % EVERY != EVERY // 2], held
