"""Where the passes of a sweep are run: one small interface, and the process itself as the first engine."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ..arrays import F
from ..forward.numerics import Numerics
from ..model.elevator import Work
from ..model.model import Model
from ..model.route import Route
from ..model.tree import read_routes
from ..text.templates import KEY
from .ledger import Outcome
from .probes.probe import Answer, Forced
from .probes.written import NOT_ASKED, Reply, Written
from .writing import answers

Probe = Forced | Written
TRIED = 2  # questions after which a route whose answers are all broken is not asked any more


class Engine(Protocol):
    """Runs probes under routes.

    model  the model
    work   what was computed
    """

    @property
    def model(self) -> Model: ...

    @property
    def work(self) -> Work: ...

    def unrouted(self, tokens: Sequence[int]) -> F:
        """The logits of the model in its own order, [T, V]."""
        ...

    def run(self, probe: Probe, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, Outcome]]:
        """Ask the questions first to stop under every route; yields (number of the route, what it came to), in any order."""
        ...


class Local:
    """This process.

    memory  bytes that hidden states, keys and values may take; None: half of what is free
    """

    def __init__(self, model: Model, numerics: Numerics, memory: int | None = None) -> None:
        self.model, self.batch, self.memory = model, model.batch(numerics), memory
        self.work = self.batch.work

    def unrouted(self, tokens: Sequence[int]) -> F:
        """The logits of the model in its own order, [T, V]."""
        (reading,) = read_routes(self.batch, [tokens], [None], memory=self.memory)
        return reading.logits(0)

    def run(self, probe: Probe, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, Outcome]]:
        """As Engine.run."""
        start = time.perf_counter()
        found = self.written(probe, first, stop, routes) if isinstance(probe, Written) else self.forced(probe, first, stop, routes)
        for number, given in found:
            now = time.perf_counter()
            yield (
                number,
                Outcome(
                    [one.score for one in given], [one.text for one in given] if any(one.text for one in given) else [], now - start
                ),
            )
            start = time.perf_counter()

    def forced(self, probe: Forced, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, list[Answer]]]:
        """Yield (number of the route, its answers) of a probe that reads logits."""
        calls = probe.calls(first, stop, self.unrouted)
        for reading in read_routes(self.batch, [call.tokens for call in calls], routes, memory=self.memory):
            taken = [call.take(reading.logits(n, slice(call.first, None))) for n, call in enumerate(calls)]
            yield reading.number, probe.answers(first, stop, taken)

    def written(self, probe: Written, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, list[Answer]]]:
        """Yield (number of the route, its answers) of a probe that lets the model write.

        A route whose first TRIED answers are all broken is not asked the others; the unrouted model always is.
        """
        tried = min(stop, first + TRIED) if first == 0 else first
        replies: dict[int, dict[int, Reply]] = {number: {} for number in range(len(routes))}
        for number, question, reply in self.replies(probe, range(first, tried), routes, range(len(routes))):
            replies[number][question] = reply
        sound = [n for n, route in enumerate(routes) if route.is_identity or not all_broken(replies[n].values())]
        for number in set(range(len(routes))) - set(sound):
            given = [probe.answer(question, replies[number][question]) for question in range(first, tried)]
            yield number, given + [Answer(0.0, NOT_ASKED)] * (stop - tried)
        left = dict.fromkeys(sound, stop - tried)
        yield from ((n, self.given(probe, first, stop, replies[n])) for n in sound if tried == stop)
        for number, question, reply in self.replies(probe, range(tried, stop), routes, sound):
            replies[number][question] = reply
            left[number] -= 1
            if not left[number]:
                yield number, self.given(probe, first, stop, replies[number])

    @staticmethod
    def given(probe: Written, first: int, stop: int, replies: dict[int, Reply]) -> list[Answer]:
        """The answers of one route from its replies, by question."""
        return [probe.answer(question, replies[question]) for question in range(first, stop)]

    def replies(
        self, probe: Written, questions: range, routes: Sequence[Route], chosen: Sequence[int]
    ) -> Iterator[tuple[int, int, Reply]]:
        """Yield (number of the route, question, reply) for some routes, as they end."""
        prompts, raw = [probe.prompts[question] for question in questions], not self.model.file.metadata.str(KEY, "")
        some = [routes[number] for number in chosen]
        if not prompts:
            return
        for number, place, reply in answers(self.batch, self.model.tokenizer, prompts, some, raw, self.memory):
            yield chosen[number], questions[place], reply


def all_broken(replies: Iterable[Reply]) -> bool:
    """Whether there are replies, and all are broken."""
    given = list(replies)
    return bool(given) and all(reply.trouble for reply in given)
