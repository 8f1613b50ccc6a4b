"""Where the passes of a sweep are run: one small interface, and the process itself as the first engine."""

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..arrays import F
from ..forward.numerics import Numerics
from ..model.model import Model
from ..model.route import Route
from .ledger import Outcome
from .probes.probe import Forced


class Engine(Protocol):
    """Runs probes under routes."""

    def run(self, probe: Forced, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, Outcome]]:
        """Ask the questions first to stop under every route; yields (number of the route, what it came to), in any order."""
        ...


class Local:
    """This process. `visits` counts the (block, sequence) pairs that were computed."""

    def __init__(self, model: Model, numerics: Numerics) -> None:
        self.model, self.numerics, self.visits = model, numerics, 0

    def unrouted(self, tokens: Sequence[int]) -> F:
        """The logits of the model in its own order, [T, V]."""
        self.visits += self.model.n_layer
        return self.model.forward(tokens, None, self.numerics)

    def run(self, probe: Forced, first: int, stop: int, routes: Sequence[Route]) -> Iterator[tuple[int, Outcome]]:
        """As Engine.run; every route is run from scratch."""
        calls = probe.calls(first, stop, self.unrouted)
        for number, route in enumerate(routes):
            start = time.perf_counter()
            taken = [call.take(self.model.forward(call.tokens, route, self.numerics)) for call in calls]
            self.visits += len(route.layers) * len(calls)
            answers = probe.answers(first, stop, taken)
            yield number, Outcome([a.score for a in answers], [a.text for a in answers], time.perf_counter() - start)
