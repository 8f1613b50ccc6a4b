"""The forms of a fault: a hyperparameter, an operation, a tap, a weight, the calls. Each function makes a Change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arch import Hparams
from ..arrays import Bytes, F, Ints
from ..forward.weights import Share, Weight
from ..gguf.tensor import Arranged, Tensor
from ..model.model import Model
from ..ops.rope import Rope
from ..quants import LAYOUTS, dequantize
from .altered import Patch, rewired, touched
from .fault import Calls, Change, Engine

Fits = Callable[[Model], bool]


def always(model: Model) -> bool:
    """A fault that makes a difference to every model that has its sites."""
    return True


def hparams(change: Callable[[Hparams], Hparams]) -> Change:
    """Other hyperparameters; no difference where they are the same."""

    def on(e: Engine) -> Engine | None:
        hp = change(e.model.hp)
        return None if hp == e.model.hp else replace(e, model=e.model.with_tensors(e.model.tensors.changed(hp=hp)))

    return on


def rotations(change: Callable[[Rope, Hparams], Rope]) -> Change:
    """Other rotations, in blocks with a sliding window too."""

    def other(hp: Hparams) -> Hparams:
        sliding = hp.rope_sliding and change(hp.rope_sliding, hp)
        return replace(hp, rope=change(hp.rope, hp), rope_sliding=sliding)

    return hparams(other)


def operation(name: str, other: Callable[..., Any], fits: Fits = always) -> Change:
    """Field `name` of the numerics computes other(its healthy self, hp, *arguments)."""

    def on(e: Engine) -> Engine | None:
        if not fits(e.model):
            return None
        healthy, hp = getattr(e.numerics, name), e.model.hp
        faulty: dict[str, Any] = {name: lambda *given: other(healthy, hp, *given)}
        return replace(e, numerics=replace(e.numerics, **faulty))

    return on


def taps(patches: Mapping[str, Patch], reads: tuple[str, ...] = (), fits: Fits = always) -> Change:
    """Taps that are computed anew: site -> patch. `reads` are the sites whose numbers they need."""

    def on(e: Engine) -> Engine | None:
        here = touched(e.model, tuple(patches))
        return replace(e, model=rewired(e.model, patches, reads)) if here and fits(e.model) else None

    return on


def vectors(attribute: str, change: Callable[[F, Hparams], F], fits: Fits = always) -> Change:
    """Another vector, or other small weights, in every block that has them: (values in their shape, hp) -> values."""

    def on(e: Engine) -> Engine | None:
        def other(w: Weight | Share) -> Weight | None:
            old = w.dense(np.float32)
            new = change(old, e.model.hp)
            return None if np.array_equal(old, new) else floats(w, new)

        return with_weights(e, attribute, other) if fits(e.model) else None

    return on


def matrices(attribute: str, order: Callable[[Hparams], Ints], fits: Fits = always) -> Change:
    """Rows of a matrix in another order, in every block that has it: hp -> the numbers of the rows that are read instead."""

    def on(e: Engine) -> Engine | None:
        def other(w: Weight | Share) -> Weight | None:
            rows = order(e.model.hp)
            return None if np.array_equal(rows, np.arange(len(w.rows))) else packed(w, lambda a, b: w.rows[rows[a:b]])

        return with_weights(e, attribute, other) if fits(e.model) else None

    return on


def with_weights(e: Engine, attribute: str, other: Callable[[Weight | Share], Weight | None]) -> Engine | None:
    """The engine with another weight in every block that has that attribute; None where none changes."""
    new = {block.index: other(getattr(block, attribute)) for block in e.model.blocks if block.has(attribute)}
    if not any(new.values()):
        return None
    blocks = [block.with_weights({attribute: w}) if (w := new.get(block.index)) else block for block in e.model.blocks]
    return replace(e, model=e.model.with_tensors(e.model.tensors.changed(blocks=blocks)))


def outside(e: Engine, name: str, change: Callable[[F], F]) -> Engine | None:
    """The engine with other values of a vector outside of blocks; None where they are the same, or there is no such tensor."""
    w = e.model.weights.get(name)
    if w is None or np.array_equal(old := w.dense(np.float32), values := change(old)):
        return None
    return replace(e, model=e.model.with_tensors(e.model.tensors.changed(weights={name: floats(w, values)})))


def repacked(kinds: Mapping[Q, Callable[[Any], None]]) -> Change:
    """Blocks of packed weights read wrongly, in every matrix of these types.

    kinds  type -> a function that changes blocks [rows, N] of its quants.BLOCK in place
    """

    def other(w: Weight | Share) -> Weight | None:
        if w.type not in kinds or len(w.shape) < 2:
            return None

        def make(start: int, stop: int) -> Bytes:
            rows = w.rows[start:stop].copy()
            kinds[w.type](rows.view(LAYOUTS[w.type].BLOCK))
            return rows

        return packed(w, make)

    def on(e: Engine) -> Engine | None:
        own = [{name: new for name in block.names if (new := other(getattr(block, name)))} for block in e.model.blocks]
        outer = {name: new for name, w in e.model.weights.items() if not name.startswith("blk.") and (new := other(w))}
        if not outer and not any(own):
            return None
        blocks = [block.with_weights(new) for block, new in zip(e.model.blocks, own, strict=True)]
        return replace(e, model=e.model.with_tensors(e.model.tensors.changed(blocks=blocks, weights=outer)))

    return on


def floats(w: Weight | Share, values: F) -> Weight:
    """A weight of other values, F32, in their shape."""
    data = np.ascontiguousarray(values, np.float32)
    return Weight(Tensor(w.name, Q.F32, data.shape, home(w).file, data.reshape(-1).view(np.uint8)), None, own_bias(w))


@dataclass(frozen=True)
class Lazy:
    """Rows that are made of others when they are asked for, and not kept: (first, end) -> packed rows."""

    make: Callable[[int, int], Bytes]

    def between(self, start: int, stop: int) -> Bytes:
        """The packed rows from `start` to before `stop`."""
        return self.make(start, stop)


def packed(w: Weight | Share, make: Callable[[int, int], Bytes]) -> Weight:
    """A weight of the same type and shape with other packed rows; `make` gives those from a first one to before an end."""
    scale = w.scale if isinstance(w, Weight) else w.whole.scale
    return Weight(Arranged(w.name, w.type, w.shape, home(w).file, Lazy(make)), scale, own_bias(w))


def home(w: Weight | Share) -> Any:
    """The tensor in the file that a weight is of."""
    return w.tensor if isinstance(w, Weight) else w.whole.tensor


def own_bias(w: Weight | Share) -> Weight | None:
    """What is added to a weight's products, as a weight of its own."""
    if w.bias is None or isinstance(w.bias, Weight):
        return w.bias
    return floats(w.bias, w.bias.dense(np.float32))


def decoded(w: Weight | Share) -> F:
    """All numbers of a weight in its shape, float32. Not kept."""
    return dequantize(w.type, w.rows).reshape(w.shape)


def calls(change: Callable[[Sequence[Sequence[int]], Model], Calls | None]) -> Change:
    """Other calls than were asked for: (the calls, the model) -> the calls; no difference where that gives None for one token."""

    def on(e: Engine) -> Engine | None:
        if change([[0, 0]], e.model) is None:
            return None
        return replace(e, feed=lambda asked: change(e.feed(asked), e.model) or asked)

    return on


def any_of(*changes: Change) -> Change:
    """Several changes as one, each where it makes a difference; none where no one does."""

    def on(e: Engine) -> Engine | None:
        whole = e
        for change in changes:
            whole = change(whole) or whole
        return None if whole is e else whole

    return on
