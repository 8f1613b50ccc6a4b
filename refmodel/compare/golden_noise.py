"""How far right engines are from the exact result of one run: the measured noise that justifies a golden's tolerance.

Each engine of ENGINES is a healthy pass of ours that rounds in one way. Its noise is the NMSE of each recorded tensor to the pass
in float64. Two right engines then differ by no more than the noise of both, times a factor for the scatter of single runs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import F, Ints
from ..errors import TensorError
from ..forward.numerics import Numerics
from ..forward.taps import in_call
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from ..numerics import FAST, LLAMACPP, ORACLE, REFERENCE
from ..ops.ieee import half
from .allowances import FLOOR, OF_CLASSES, OF_FLOATS
from .diff import has_draft, shows_scores
from .golden_tolerance import EXACT, FLOATS, OWN, ROUND, finest_first
from .rounding_classes import bfloat_of, through
from .rows import compare
from .verdict import twin


@dataclass(frozen=True)
class Engine:
    """A healthy engine: its numerics, and to how many significant bits it rounds every intermediate; 24 for float32."""

    numerics: Numerics
    bits: int = 24


ENGINES: Mapping[str, Engine] = dict(
    zip(
        ROUND,
        (
            Engine(REFERENCE),
            Engine(replace(REFERENCE, store=half), 11),
            Engine(FAST),
            Engine(LLAMACPP),
            Engine(replace(REFERENCE, store=bfloat_of), 8),
        ),
        strict=True,
    )
)


def engine_named(numerics: Numerics) -> str:
    """The engine that rounds as a numerics: `llamacpp` for each of its profiles, `reference` for one that is not known."""
    name = numerics.name.partition(":")[0]
    return name if name in (EXACT, *ENGINES) else "reference"


class Kept:
    """A tapper that keeps some taps, of logits some tokens; the pass goes on with what was rounded.

    names  the taps
    rows   tap of logits -> the tokens of its call; without it all
    bits   to which every intermediate is rounded; 24 for not at all
    arrays what was kept
    """

    def __init__(self, names: Collection[str], rows: Mapping[str, Ints], bits: int, seen: Callable[[str], None]) -> None:
        self.names, self.rows, self.bits, self.seen = names, rows, bits, seen
        self.arrays, self.call = dict[str, F](), 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call = call

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        self.seen(name)
        x = through(x, self.bits) if self.bits < 24 else x
        if key in self.names:
            self.arrays[key] = x[self.rows[key]] if key in self.rows else x.copy()
        return x


@dataclass(frozen=True)
class Run:
    """What is run, and what of it is kept: see Kept; `apart` as in run_calls."""

    model: Model
    route: Route
    calls: Sequence[Sequence[int]]
    names: Collection[str]
    rows: Mapping[str, Ints]
    apart: bool = False

    def under(self, engine: Engine, seen: Callable[[str], None]) -> Mapping[str, F]:
        """The kept arrays of a pass of that engine. TensorError for a type that its numerics does not multiply."""
        kept = Kept(self.names, self.rows, engine.bits, seen)
        session = self.model.session(self.route, engine.numerics, kept, has_draft(self.names), shows_scores(self.names))
        for _ in run_calls(session, self.calls, kept, apart=self.apart):
            pass
        return kept.arrays


Noise = dict[str, dict[str, float]]


def measured(run: Run, arithmetic: Numerics, seen: Callable[[str], None]) -> tuple[Noise, Mapping[str, F]]:
    """The noise of every engine on this run, and the kept arrays of the pass in float64.

    The noise is engine -> tap -> NMSE to that pass, and `own` -> tap -> NMSE of two that round as `arithmetic` does. An engine that
    cannot multiply the file's types is left out. `seen` is called with what is computed.
    """
    exact = run.under(Engine(ORACLE), seen)
    engines = dict(ENGINES)
    if arithmetic.emulates:
        engines[engine_named(arithmetic)] = Engine(arithmetic)
    found = {EXACT: dict.fromkeys(exact, 0.0)}
    for name, engine in engines.items():
        try:
            arrays = run.under(engine, seen)
        except TensorError:
            continue
        found[name] = distances(arrays, exact)
        if engine_named(arithmetic) == name:
            found[OWN] = distances(arrays, run.under(Engine(twin(arithmetic)), seen))
    found.setdefault(OWN, found["reference"])
    return found, exact


def distances(a: Mapping[str, F], b: Mapping[str, F]) -> dict[str, float]:
    """NMSE of each array of a to that of b; infinite for one that b has not, or in another shape."""
    rows = {name: compare(name, x, b[name]) for name, x in a.items() if name in b}
    return {name: rows[name].nmse if name in rows and not rows[name].problem else np.inf for name in a}


def explains(noise: Noise, exact: Mapping[str, F], arrays: Mapping[str, F]) -> str:
    """What an engine of unknown rounding rounds: the finest of ENGINES whose noise explains its arrays; empty if none does.

    noise, exact  as `measured` gives them
    """
    away = distances(arrays, exact)
    for name in finest_first(noise):
        factor = OF_FLOATS if name in FLOATS else OF_CLASSES
        if all(lost <= factor * noise[name].get(tap, 0.0) + FLOOR for tap, lost in away.items()):
            return name
    return ""
