"""An architecture whose steps run with something changed, and taps that are computed anew. No architecture's text is touched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType, ModuleType
from typing import Any, cast

import numpy as np

from ..arch import Architecture, Hparams
from ..arrays import DType, F
from ..forward.call import Call
from ..forward.state import State
from ..forward.taps import Tapper
from ..forward.weights import Block, Output, Weight
from ..model.model import Model
from .sites import GROUPS, OUTSIDE, SITES, places


@dataclass
class At:
    """What the patch of a tap may read.

    x     what the step reads: of a block its input [T, E]
    c     the call: hyperparameters, numerics, positions
    w     the block's weights; None outside of blocks
    s     the position's state; None outside of blocks
    seen  site -> what the pass computed there, of this block and call; only sites that the patch asked for
    """

    x: F
    c: Call
    w: Any
    s: Any
    seen: dict[str, F] = field(default_factory=dict)


Patch = Callable[[F, At], F]
"""A tap computed anew: (what the healthy step computed, what else is known) -> what the pass goes on with, in the same shape."""
Around = Callable[[F, Any, Any, Call], Call]
"""What a step runs with: (its input, the block's weights, its state, the call) -> another call. Outside of blocks there is no w."""
Begin = Callable[[State, Hparams, int], State]
"""What a position remembers at first: (the healthy new state, the hyperparameters, the block's number) -> another state."""


class Rewired:
    """A tapper that computes some taps anew before the next tapper sees them.

    inner    the next tapper
    patches  full name of a tap -> its patch
    kept     full name of a tap -> the site under which patches may read it
    at       what patches may read
    """

    def __init__(self, inner: Tapper, patches: Mapping[str, Patch], kept: Mapping[str, str], at: At) -> None:
        self.inner, self.patches, self.kept, self.at = inner, patches, kept, at

    def __call__(self, name: str, x: F) -> F:
        if name in self.patches:
            x = np.ascontiguousarray(self.patches[name](x, self.at), x.dtype)
        x = self.inner(name, x)
        if name in self.kept:
            self.at.seen[self.kept[name]] = x.copy()  # states are changed in place
        return x


@dataclass(frozen=True)
class Altered:
    """An architecture that runs each step of another one with something changed.

    arch    the other one
    around  what its steps run with, applied in this order
    begins  what its positions remember at the beginning
    """

    arch: Architecture
    around: tuple[Around, ...] = ()
    begins: tuple[Begin, ...] = ()

    def __getattr__(self, name: str) -> Any:  # FACTS, kind, shapes and the like: those of the other one
        return getattr(self.arch, name)

    def given(self, x: F, w: Any, s: Any, c: Call) -> Call:
        """The call that a step gets."""
        for change in self.around:
            c = change(x, w, s, c)
        return c

    def new_state(self, hp: Hparams, index: int, dtype: DType) -> State:
        """What a position remembers before the first token."""
        state = self.arch.new_state(hp, index, dtype)
        for change in self.begins:
            state = change(state, hp, index)
        return state

    def embed(self, x: F, c: Call) -> F:
        """Embedded tokens [T, E], as the first block reads them."""
        return self.arch.embed(x, self.given(x, None, None, c))

    def block(self, x: F, w: Block, s: Any, c: Call) -> F:
        """One decoder block, [T, E] -> [T, E]."""
        return self.arch.block(x, w, s, self.given(x, w, s, c))

    def final_norm(self, x: F, output_norm: Weight, c: Call) -> F:
        """What the head reads, [T, E] -> [T, E]."""
        return self.arch.final_norm(x, output_norm, self.given(x, None, None, c))

    def head(self, h: F, output: Output, c: Call) -> F:
        """Logits, [T, E] -> [T, V]."""
        return self.arch.head(h, output, self.given(h, None, None, c))


def altered(model: Model, around: Around | None = None, begin: Begin | None = None) -> Model:
    """The same model whose steps run with something changed, after what is changed already."""
    old = model.arch if isinstance(model.arch, Altered) else Altered(model.arch)
    more, first = (around,) if around else (), (begin,) if begin else ()
    new = replace(old, around=old.around + more, begins=old.begins + first)
    return with_architecture(model, cast(Architecture, new))


def with_architecture(model: Model, arch: Architecture) -> Model:
    """The same model computed by other steps."""
    return model.with_tensors(model.tensors.changed(arch=arch))


def with_steps(model: Model, steps: Mapping[str, Callable[..., Any]]) -> Model:
    """The same model, whose architecture calls other functions by these names: `{"unit_norm": ...}`.

    The architecture's own functions run as they are written, but look names up in a copy of their module.
    """
    old = model.arch if isinstance(model.arch, Altered) else Altered(model.arch)
    own = vars(old.arch)
    module = ModuleType(str(own["__name__"]), own["__doc__"])
    for name, value in own.items():
        known = isinstance(value, FunctionType) and value.__globals__ is own
        module.__dict__[name] = FunctionType(value.__code__, module.__dict__, name, value.__defaults__) if known else value
    module.__dict__.update(steps)
    return with_architecture(model, cast(Architecture, replace(old, arch=cast(Architecture, module))))


def group_of(model: Model, w: Any) -> str:
    """The group of a block's kind, as sites.SITES has them; that outside of blocks for None."""
    return OUTSIDE if w is None else GROUPS[model.arch.kind(model.hp, w.index)]


def here(model: Model, site: str) -> dict[str, str]:
    """Where a model's architecture has a site: group of blocks -> tap."""
    return places(site, model.architecture, model.hp.n_expert > 0)


def touched(model: Model, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Where a model has these sites: group of its blocks -> taps. Groups without any are left out."""
    groups = {OUTSIDE, *(GROUPS[kind] for kind in model.kinds)}
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        for group, tap in here(model, name).items():
            if group in groups:
                found[group] = (*found.get(group, ()), tap)
    return found


def rewired(model: Model, patches: Mapping[str, Patch], reads: tuple[str, ...]) -> Model:
    """The same model with taps computed anew.

    patches  site -> its patch
    reads    the sites whose numbers the patches read
    """
    own = {site: here(model, site) for site in (*patches, *reads)}
    reach = {group for site in patches for group in own[site]}
    assert set(own) <= set(SITES)

    def around(x: F, w: Any, s: Any, c: Call) -> Call:
        group = group_of(model, w)
        if group not in reach:
            return c
        taps = {c.full_name(own[site][group]): patch for site, patch in patches.items() if group in own[site]}
        kept = {c.full_name(own[site][group]): site for site in reads if group in own[site]}
        return replace(c, tapper=Rewired(c.tapper, taps, kept, At(x, c, w, s)))

    return altered(model, around)
