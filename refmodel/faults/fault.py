"""A named fault, and what it is put into: an engine, that is a model, its arithmetic and how it is fed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..arrays import F
from ..forward.numerics import Numerics
from ..forward.taps import Tapper, silent
from ..model.model import Model, RouteLike
from ..model.route import Route
from ..model.session import Session
from .altered import touched

Calls = Sequence[Sequence[int]]
"""The token ids of each call of a session."""


def as_asked(calls: Calls) -> Calls:
    """The calls of a healthy harness: those that were asked for."""
    return calls


def as_given(route: Route) -> Route:
    """The route of a healthy engine: the one that it was given."""
    return route


@dataclass(frozen=True)
class Engine:
    """What computes.

    model     the model; a fault may give it other hyperparameters, weights, steps or states, its file stays as it is
    numerics  the arithmetic
    feed      the calls that are asked for -> the calls that are made
    follow    the route that it is given -> the route that it runs
    """

    model: Model
    numerics: Numerics
    feed: Callable[[Calls], Calls] = as_asked
    follow: Callable[[Route], Route] = as_given

    def session(self, route: RouteLike = None, tapper: Tapper = silent, scores: bool = False) -> Session:
        """A sequence that is fed piece by piece; parameters and errors as Model.session has them."""
        return self.model.session(self.follow(self.model.route(route)), self.numerics, tapper, scores=scores)

    def forward(self, tokens: Sequence[int], route: RouteLike = None, logits: str = "all", tapper: Tapper = silent) -> F:
        """The logits of a sequence from its start, in one call: [T, V], or [1, V] for "last". T is of the tokens that are fed."""
        return self.session(route, tapper).forward(self.fed(tokens), logits)

    def fed(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens of one call that are fed where these are asked for."""
        (call,) = self.feed([tokens])
        return call


PROMPT = "the prompt"  # the first call of a sequence, of several tokens
LATER = "a later call"  # of the same sequence, as decoding makes them
SECOND = "a second sequence"  # of the same engine
SHORT = "a prompt of one token"  # or of a few: fewer than the convolution remembers
ROUTED = "a repeated block"  # under a route
ROUTED_LATER = "a later call with a repeated block"

Change = Callable[[Engine], Engine | None]
"""What is wrong: an engine -> the engine with the fault; None if it makes no difference to this model."""


@dataclass(frozen=True)
class Fault:
    """A fault that an engine had, or could have.

    id        F01 to F77, the class of the collection; the name where it is none of these
    name      its own name; a class may have several forms
    family    the module of this package that holds it
    says      what goes wrong, one sentence
    evidence  where it, or its like, happened
    fix       what to do, with the key or tensor that says it
    right     the function of refmodel that does it right, `module:function`
    at        what it changes first, as sites.SITES names it; from healthy inputs nothing else differs
    change    what is wrong
    tensors   of a block or of the file: those that are read or used wrongly, without blk.N.
    keys      of the metadata, without the architecture's name: those that are read wrongly
    when      the first call in which it shows: PROMPT, LATER and so on
    placebo   whether nothing of it reaches the logits but rounding
    types     tensor types that it reads wrongly, by ggml's name, where that is what it does; then any architecture may have it
    """

    id: str
    name: str
    family: str
    says: str
    evidence: str
    fix: str
    right: str
    at: tuple[str, ...]
    change: Change
    tensors: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    when: str = PROMPT
    placebo: bool = False
    types: tuple[str, ...] = ()

    def on(self, engine: Engine) -> Engine | None:
        """The engine with this fault, also with others that it has already. None if it makes no difference to the model.

        Nothing of the engine is changed, and the weights are shared. A fault of states keeps them in the new engine: take a new
        one for an unrelated sequence.
        """
        return self.change(engine) if self.touches(engine.model) else None

    def touches(self, model: Model) -> dict[str, tuple[str, ...]]:
        """What it changes first in a model: group of blocks (sites.GROUPS; "" outside of blocks) -> taps without a position."""
        return touched(model, self.at)


def with_all(faults: Sequence[Fault], engine: Engine) -> Engine | None:
    """The engine with several faults, in this order. None if one of them makes no difference to the model."""
    for fault in faults:
        faulty = fault.on(engine)
        if faulty is None:
            return None
        engine = faulty
    return engine
