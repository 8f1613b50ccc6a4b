"""The sweep itself: every route is asked every question, once, whatever ends the process in between."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..arrays import F
from ..errors import SweepError
from ..forward.numerics import Numerics
from ..model.route import Route
from .engines import Engine, Probe
from .ledger import Job, Ledger
from .probes.probe import Facts
from .race import Race, raced, rungs
from .results import results
from .verdict import finalists, gains_of

AT_ONCE = 64  # routes that one process takes at a time: neighbours share most of their work, and a kill loses no more
PATIENCE = 0.5  # seconds between two looks at what other processes still compute

Note = Callable[[Route], str]
"""A route -> what a reader should know of it, such as which runtimes cannot load it; empty for nothing."""


@dataclass
class Run:
    """One process's part of a sweep.

    ledger    where results go
    probes    by name
    engine    runs passes
    numerics  how they compute
    note      what to write next to a route
    seen      called with the text of a route and the number of jobs that are left, after each job
    """

    ledger: Ledger
    probes: dict[str, Probe]
    engine: Engine
    numerics: Numerics
    note: Note = lambda route: ""
    seen: Callable[[str, int], None] = lambda route, left: None

    def ask(self, routes: Iterable[Route], probe: str, first: int, stop: int) -> None:
        """Have every route asked these questions of a probe, by this process or by others; returns when all are done.

        What a route was asked before, for example in a race, is not asked again.
        """
        chosen = sorted(routes, key=lambda route: route.layers)
        numbers, met = self.numbers(chosen), self.ledger.met(probe)
        by_id = {numbers[route.canonical]: route for route in chosen}
        jobs = [Job(number, probe, at, stop - at) for number in by_id if (at := max(first, met.get(number, 0))) < stop]
        while left := self.ledger.missing(jobs):
            if mine := self.claimed(left):
                self.do(mine, [by_id[job.route] for job in mine], len(left))
            else:
                time.sleep(PATIENCE)  # others compute the rest

    def claimed(self, left: Sequence[Job]) -> list[Job]:
        """Some jobs that nobody works at, all with the same questions; none if others hold them all."""
        for first in sorted({job.first for job in left}):
            if mine := self.ledger.claim([job for job in left if job.first == first], AT_ONCE):
                return mine
        return []

    def do(self, jobs: Sequence[Job], routes: Sequence[Route], left: int) -> None:
        """Compute jobs of one probe and the same questions, and write each as soon as it is done."""
        first, stop = jobs[0].first, jobs[0].first + jobs[0].n
        for number, outcome in self.engine.run(self.probes[jobs[0].probe], first, stop, routes):
            self.ledger.record(jobs[number], outcome)
            left -= 1
            self.seen(routes[number].canonical, left)

    def numbers(self, routes: Sequence[Route]) -> dict[str, int]:
        """The ledger's number of each route, by its canonical text; new ones are added with a note."""
        known = {row["route"] for row in self.ledger.routes()}
        new = [(route.canonical, route.layers, self.note(route)) for route in routes if route.canonical not in known]
        return self.ledger.add(new)


def full(run: Run, routes: Sequence[Route]) -> None:
    """Ask every route every question of every probe that is not held out."""
    for name, probe in run.probes.items():
        if not probe.facts.held_out_of:
            run.ask(routes, name, 0, probe.facts.questions)


def hold_out(run: Run) -> None:
    """Ask the finalists the held-out questions, which have no part in choosing them."""
    held = [probe.facts for probe in run.probes.values() if probe.facts.held_out_of]
    for facts in held:
        run.ask(finalists(results(run.ledger)), facts.name, 0, facts.questions)


def marks_of(probes: Sequence[Facts]) -> list[list[int]]:
    """For each rung of a race, how many questions of each probe have been met after it; all in the last."""
    most = max((rungs(facts.questions, facts.group) for facts in probes), key=len)
    marks = []
    for mark in most:
        groups = [-(-facts.questions * mark // (facts.group * most[-1])) for facts in probes]
        marks.append([min(facts.questions, max(1, count) * facts.group) for facts, count in zip(probes, groups)])
    return marks


def race(run: Run, routes: Sequence[Route]) -> Race:
    """Race the routes over all probes together; every rung is in the ledger, and a race that was ended goes on where it was."""
    own, others = Route.identity(routes[0].n_layer), [route for route in routes if not route.is_identity]
    facts = [probe.facts for probe in run.probes.values() if not probe.facts.held_out_of]
    marks = marks_of(facts)

    def gains(columns: Sequence[int], rung: int) -> F:
        alive, before = [others[column] for column in columns], marks[rung - 1] if rung else [0] * len(facts)
        for one, first, stop in zip(facts, before, marks[rung], strict=True):
            if first < stop:
                run.ask([own, *alive], one.name, first, stop)
        found = results(run.ledger)
        rows = {row.route: row for row in found.rows}
        return gains_of(found, [rows[route] for route in alive], [one.name for one in facts], marks[rung])

    return raced(len(others), [sum(mark) for mark in marks], gains)


def by_name(probes: Sequence[Probe]) -> dict[str, Probe]:
    """The probes by their names. SweepError if there are none."""
    if not probes:
        raise SweepError("a sweep needs at least one probe: --probe nll:TEXTFILE")
    return {probe.facts.name: probe for probe in probes}
