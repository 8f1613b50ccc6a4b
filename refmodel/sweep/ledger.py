"""The ledger: one SQLite file with everything that a sweep found. A kill at any moment loses at most what was running.

Each (route, probe, questions) is written in one transaction, together with its scores, answers and times, and only once. Several
processes may work on one ledger: a lease says who computes what, and ends with the process that holds it.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import SweepError
from ..machine.boundary import from_json
from .leases import alive, me

FORMAT = 1
MAGIC = b"SQLite format 3\0"
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE routes (id INTEGER PRIMARY KEY, route TEXT NOT NULL UNIQUE, layers TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE answers (
    route INTEGER NOT NULL REFERENCES routes (id), probe TEXT NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL,
    scores TEXT NOT NULL, texts TEXT NOT NULL, seconds REAL NOT NULL, worker TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (route, probe, first)) WITHOUT ROWID;
CREATE TABLE leases (
    route INTEGER NOT NULL, probe TEXT NOT NULL, first INTEGER NOT NULL, worker TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (route, probe, first)) WITHOUT ROWID;
"""
LEASE = 900.0  # seconds after which work of a process on another machine is taken over, unless it reports something
WAIT = 60.0  # seconds that a transaction waits for another one
DAMAGED = "the ledger is damaged: begin another"


@dataclass(frozen=True)
class Job:
    """Some questions of one probe under one route: the smallest piece of work, and of what is written.

    route  its number in the ledger
    probe  its name
    first  the first question; n how many
    """

    route: int
    probe: str
    first: int
    n: int


@dataclass(frozen=True)
class Outcome:
    """What a job came to: the score of each question, what was answered, and the seconds that it took."""

    scores: Sequence[float]
    texts: Sequence[str]
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """What a ledger is about; a ledger never holds two of these.

    model     the model's sha256
    name      its file's name, for reports
    n_layer   blocks of the unrouted model
    numerics  the numerics' name
    probes    name -> what it is: digest, questions, better ("lower" or "higher")
    """

    model: str
    name: str
    n_layer: int
    numerics: str
    probes: Mapping[str, Mapping[str, Any]]

    def as_rows(self) -> dict[str, str]:
        """As the table `about` has it."""
        plain = {"model": self.model, "name": self.name, "n_layer": str(self.n_layer), "numerics": self.numerics}
        return {"format": str(FORMAT), **plain, "probes": json.dumps(self.probes, sort_keys=True)}


class Ledger:
    """An open ledger; use it in a `with`. `opened` and `made` return one."""

    def __init__(self, path: Path, about: Sweep, base: sqlite3.Connection) -> None:
        self.path, self.about, self._base = path, about, base

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            with self._writing() as base:
                base.execute("DELETE FROM leases WHERE worker = ?", (me(),))
        except (SweepError, sqlite3.Error):
            if kind is None:
                raise
        finally:
            self._base.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all that is written in the block, or nothing."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise SweepError(f"{self.path}: cannot be written: {error}; make room, or wait for the other process") from None

    def add(self, routes: Iterable[tuple[str, Sequence[int], str]]) -> dict[str, int]:
        """Add routes that are not there: (canonical text, source blocks, note). Returns the number of each."""
        rows = [(text, json.dumps(list(layers)), note) for text, layers, note in routes]
        with self._writing() as base:
            base.executemany("INSERT OR IGNORE INTO routes (route, layers, note) VALUES (?, ?, ?)", rows)
        return dict(self._base.execute("SELECT route, id FROM routes"))

    def claim(self, jobs: Sequence[Job], most: int) -> list[Job]:
        """Lease up to `most` of the jobs, in their order: those that are not done, and that no living process works at."""
        now, mine = time.time(), me()
        with self._writing() as base:
            done = set(base.execute("SELECT route, probe, first FROM answers"))
            rows = base.execute("SELECT * FROM leases WHERE worker != ?", (mine,))
            leased = {tuple(key) for *key, worker, until in rows if alive(worker, until, now)}
            free = [job for job in jobs if (job.route, job.probe, job.first) not in done | leased][:most]
            base.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                [(job.route, job.probe, job.first, mine, now + LEASE) for job in free],
            )
            base.execute("UPDATE leases SET until = ? WHERE worker = ?", (now + LEASE, mine))
        return free

    def record(self, job: Job, outcome: Outcome) -> bool:
        """Write what a job came to and end its lease. False if another process had written it: then that stays."""
        scores, texts = (json.dumps(list(values)) for values in (outcome.scores, outcome.texts))
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = (job.route, job.probe, job.first, job.n, scores, texts, outcome.seconds, me(), at)
        with self._writing() as base:
            done = base.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount
            key = (job.route, job.probe, job.first)
            base.execute("DELETE FROM leases WHERE route = ? AND probe = ? AND first = ?", key)
            base.execute("UPDATE leases SET until = ? WHERE worker = ?", (time.time() + LEASE, me()))
        return done == 1

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those jobs that nobody has done yet, in their order."""
        done = set(self._base.execute("SELECT route, probe, first FROM answers"))
        return [job for job in jobs if (job.route, job.probe, job.first) not in done]

    def met(self, probe: str) -> dict[int, int]:
        """How many questions of a probe each route was asked, from the first one on without a gap: number of the route -> count."""
        found: dict[int, int] = {}
        rows = self._base.execute("SELECT route, first, n FROM answers WHERE probe = ? ORDER BY route, first", (probe,))
        for route, first, n in rows:
            if first == found.get(route, 0):
                found[route] = first + n
        return found

    def routes(self) -> list[dict[str, Any]]:
        """All routes as {id, route, layers, note}, in the order in which they were added."""
        names = ("id", "route", "layers", "note")
        rows = [dict(zip(names, row)) for row in self._base.execute("SELECT id, route, layers, note FROM routes ORDER BY id")]
        return [row | {"layers": from_json(row["layers"], str(self.path), SweepError, DAMAGED)} for row in rows]

    def answers(self) -> list[dict[str, Any]]:
        """All that was found, one entry a job: {route, probe, first, n, scores, texts, seconds, worker, at}."""
        names = ("route", "probe", "first", "n", "scores", "texts", "seconds", "worker", "at")
        rows = [dict(zip(names, row)) for row in self._base.execute("SELECT * FROM answers ORDER BY route, probe, first")]
        return [
            row | {name: from_json(row[name], str(self.path), SweepError, DAMAGED) for name in ("scores", "texts")} for row in rows
        ]


def connected(path: Path) -> sqlite3.Connection:
    """A connection that waits for others. SweepError if the file is no SQLite database, or cannot be opened."""
    try:
        if path.exists() and path.stat().st_size and beginning(path) != MAGIC:
            raise SweepError(f"{path}: is not a ledger of `refmodel sweep`, which is an SQLite file; give -o another name")
        base = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
    except sqlite3.Error as error:
        raise SweepError(f"{path}: cannot be opened: {error}; check the path") from None
    try:
        base.execute("PRAGMA synchronous = NORMAL")  # of this connection: nothing is written
    except sqlite3.Error as error:
        base.close()
        raise SweepError(f"{path}: cannot be read as a ledger: {error}; give another file") from None
    return base


def tables(base: sqlite3.Connection) -> list[str]:
    """The names of a database's tables."""
    return [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def beginning(path: Path) -> bytes:
    """The first bytes of a file, as many as MAGIC has."""
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def made(path: Path, about: Sweep) -> Ledger:
    """The ledger of this sweep: a new one, or one that was begun. SweepError if it is of another model, numerics or probes."""
    if not path.parent.is_dir():
        raise SweepError(f"{path}: the folder {path.parent} does not exist; make it first")
    base = connected(path)
    try:
        if not tables(base):
            base.execute("PRAGMA journal_mode = WAL")  # stays with the file
        base.execute("BEGIN IMMEDIATE")
        if not tables(base):
            for statement in TABLES.split(";"):
                base.execute(statement)
            base.executemany("INSERT INTO about VALUES (?, ?)", about.as_rows().items())
        base.execute("COMMIT")
        found = about_of(path, base)
        refuse_another(path, found, about)
    except sqlite3.Error as error:
        base.close()
        raise SweepError(f"{path}: cannot be written: {error}; check the path and the disk") from None
    except SweepError:
        base.close()
        raise
    return Ledger(path, found, base)


def opened(path: Path) -> Ledger:
    """A ledger that exists. SweepError if there is none."""
    if not path.exists():
        raise SweepError(f"{path}: no such ledger; `refmodel sweep MODEL ... -o {path}` makes one")
    base = connected(path)
    try:
        return Ledger(path, about_of(path, base), base)
    except SweepError:
        base.close()
        raise


def about_of(path: Path, base: sqlite3.Connection) -> Sweep:
    """What a ledger is about. SweepError if it is none, or of another version."""
    try:
        rows = dict(base.execute("SELECT key, value FROM about"))
        if rows["format"] != str(FORMAT):
            raise SweepError(f"{path}: is a ledger of format {rows['format']}, expected {FORMAT}; use the refmodel that made it")
        probes = from_json(rows["probes"], str(path), SweepError, DAMAGED)
        return Sweep(rows["model"], rows["name"], int(rows["n_layer"]), rows["numerics"], probes)
    except (sqlite3.Error, KeyError, ValueError):
        raise SweepError(f"{path}: is a database but no ledger of `refmodel sweep`; give another file") from None


def refuse_another(path: Path, found: Sweep, wanted: Sweep) -> None:
    """SweepError if a ledger is not of this sweep; says what differs."""
    if found.model != wanted.model:
        raise SweepError(
            f"{path}: holds a sweep of another model ({found.name}, sha256 {found.model[:12]}…; this one is {wanted.name}, "
            f"{wanted.model[:12]}…); a ledger holds one: give -o another name"
        )
    if found.numerics != wanted.numerics:
        raise SweepError(
            f"{path}: was computed with --numerics {found.numerics}, not {wanted.numerics}; "
            "scores of two numerics are not mixed: give the same, or -o another name"
        )
    ours, theirs = (json.dumps(sweep.probes, sort_keys=True) for sweep in (wanted, found))
    if ours != theirs:
        names = sorted(name for name in {*found.probes, *wanted.probes} if found.probes.get(name) != wanted.probes.get(name))
        raise SweepError(
            f"{path}: was made with other probes ({', '.join(found.probes)}; different: {', '.join(names)}); "
            "a ledger holds one set of questions: give the same, or -o another name"
        )
