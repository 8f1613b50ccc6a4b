"""Who may start in a race: the anatomy of a model as a cheap guess, made in one pass and without any score.

A window that turns the stream of a token little does little when it runs again. Scores have no part in this choice, so what a race
says of those that start needs no other correction. What it costs is that a good window may not start: it is asked for by name.
"""

import math
from collections.abc import Sequence

from ..model.route import Route
from .anatomy import anatomy
from .engines import Probe
from .probes.written import Written
from .sweep import Run
from .windows import window_of

LONGEST = 512  # tokens of the text that is looked at


def likely(run: Run, routes: Sequence[Route], share: float) -> list[Route]:
    """The routes that start: the unrouted model, all that repeat no single window, and a share of the windows, in their order.

    share  of the windows, from 0 to 1: those with the smallest angle between what they read and what they write
    """
    windows = {route: window for route in routes if not route.is_identity and (window := window_of(route))}
    probe = next(iter(run.probes.values()))
    angles = anatomy(run.engine.model, text_of(run, probe)[:LONGEST], run.numerics).angles
    ranked = sorted(windows, key=lambda route: (float(angles[windows[route]]), route.layers))
    starts = set(ranked[: math.ceil(share * len(ranked))])
    return [route for route in routes if route not in windows or route in starts]


def text_of(run: Run, probe: Probe) -> Sequence[int]:
    """The tokens of the first thing that a probe asks."""
    if isinstance(probe, Written):
        return probe.prompts[0].tokens
    return probe.calls(0, probe.facts.questions, run.engine.unrouted)[0].tokens
