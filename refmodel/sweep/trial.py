"""The second trial: whether the best route of one file is also better in another file of the model, such as its quantization."""

from dataclasses import dataclass

import numpy as np

from ..errors import SweepError
from ..model.route import Route
from .results import Results
from .score import HELD_OUT, grouped, intervals, one_test
from .verdict import complete, seen_probes


@dataclass(frozen=True)
class Trial:
    """The best route of the first file by one probe, and how it does in both.

    probe          its name
    route          the best route of the first file
    first, second  its mean gain and the 95 % interval in each file
    p              of the gain in the second file, where the route was not chosen: one test
    place          its place among the routes that both have, in the second file; tried: how many they are
    correlation    of the gains of these routes in both files, by rank; None for fewer than three
    """

    probe: str
    route: Route
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    p: float
    place: int
    tried: int
    correlation: float | None

    @property
    def survives(self) -> bool:
        """Whether the gain of the first file is there in the second one, too, and is more than luck."""
        return self.first[0] > 0 and self.second[0] > 0 and self.p <= HELD_OUT

    @property
    def word(self) -> str:
        """`survives`, `lost`, `not settled`, or `none` where the first file has no better route."""
        if self.first[0] <= 0:
            return "none"
        return "survives" if self.survives else "lost" if self.second[2] < 0 else "not settled"


def trials(first: Results, second: Results) -> list[Trial]:
    """A trial for each probe that chooses routes. SweepError for two ledgers with other questions, or of other models.

    Both must be full sweeps of at least one common route: only routes that met all questions count.
    """
    if first.about.n_layer != second.about.n_layer:
        raise SweepError(
            f"{first.about.name} has {first.about.n_layer} blocks and {second.about.name} {second.about.n_layer}; "
            "a trial is of two files of one model"
        )
    if first.about.probes != second.about.probes:
        raise SweepError(
            f"the ledgers have other questions ({', '.join(first.about.probes)}; {', '.join(second.about.probes)}), or another "
            "tokenizer; run the same --probe words on both files"
        )
    return [tried(first, second, probe) for probe in seen_probes(first)]


def tried(first: Results, second: Results, probe: str) -> Trial:
    """The trial by one probe. SweepError if no route met all questions in both."""
    sides = [{row.route: row for row in complete(found, [probe])} for found in (first, second)]
    routes = [route for route in sides[0] if route in sides[1]]
    if not routes:
        raise SweepError(f"no route met all questions of {probe} in both ledgers; run the same plan on both, without --race")
    group = first.about.probes[probe]["group"]
    gains = [
        grouped(np.stack([found.gains(side[route], probe) for route in routes], axis=1), group)
        for found, side in zip((first, second), sides, strict=True)
    ]
    means = [some.mean(axis=0) for some in gains]
    best = int(means[0].argmax())
    spans = [intervals(some[:, [best]])[0] for some in gains]
    ones, others = (mean.argsort().argsort() for mean in means)
    correlation = float(np.corrcoef(ones, others)[0, 1]) if len(routes) > 2 else None
    figures = [(float(mean[best]), float(span[0]), float(span[1])) for mean, span in zip(means, spans)]
    place = 1 + int((means[1] > means[1][best]).sum())
    return Trial(probe, routes[best], figures[0], figures[1], one_test(gains[1][:, [best]]), place, len(routes), correlation)
