"""What one call of a model hands to its blocks: hyperparameters, numerics, positions, and the tap."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..arrays import F, Ints
from ..machine.threads import computing
from .numerics import Numerics
from .state import KeyValues
from .taps import Tapper, silent
from .weights import Block, Output, Share, Weight


@contextmanager
def passing() -> Iterator[None]:
    """Around a forward pass: kernels may run, and a broken model may overflow without a warning.

    RefmodelError in a forked child, see machine.threads.computing.
    """
    with computing(), np.errstate(over="ignore", invalid="ignore"):
        yield


@dataclass(frozen=True)
class Call:
    """The context (c) of every step of an architecture.

    hp        the architecture's Hparams
    num       the numerics
    pos       [T] positions of the new tokens, int64
    tapper    called with every intermediate
    scores    whether attention computes its scores and weights as matrices and shows them
    position  position in the route, N in a tap's name; -1 outside of blocks
    named     a tap's name -> the name to show: the nodes of a prediction block have names of their own
    parts     in a batch: which of the T tokens are whose, one slice for each sequence, in order; else none
    """

    hp: Any
    num: Numerics
    pos: Ints
    tapper: Tapper
    scores: bool = False
    position: int = -1
    named: Callable[[str], str] = str
    parts: tuple[slice, ...] = ()

    def at(self, position: int) -> "Call":
        """The same call at another position of the route."""
        return replace(self, position=position)

    def tap(self, name: str, x: F, transposed: bool = False) -> F:
        """Show x under llama.cpp's name, and return what the tapper returns: the pass goes on with it. `name#k` becomes `name-N#k`.

        x           any shape, the tokens first
        transposed  show a matrix with rows and columns exchanged, as llama.cpp has it; the result is turned back
        """
        if self.tapper is silent:
            return x
        return self.tapper(self.full_name(name), x.T).T if transposed else self.tapper(self.full_name(name), x)

    def full_name(self, name: str) -> str:
        """llama.cpp's name of a tap at this position: `Qcur#2` is `Qcur-3#2`."""
        name = self.named(name)
        if self.position < 0:
            return name
        stem, mark, count = name.partition("#")
        return f"{stem}-{self.position}{mark}{count}"

    def linear(self, name: str, x: F, w: Weight | Share) -> F:
        """x [T, I] times the matrix w [O, I], tapped, plus its bias [O] where the file has one (tap `name#bias`): [T, O]."""
        y = self.tap(name, self.num.linear(w, x))
        return y if w.bias is None else self.tap(f"{name}#bias", y + w.bias.dense(self.num.dtype))

    def logits(self, h: F, output: Output) -> F:
        """h [T, E] times the head [V, E], plus its bias where the file has one: [T, V]. llama.cpp names nothing but the sum."""
        y = self.num.linear(output, h)
        return y if output.bias is None else y + output.bias.dense(self.num.dtype)

    def norm(self, name: str, x: F, weight: Weight, normed: str = "norm") -> F:
        """The RMS norm of x over its last axis times a weight of that length, x's shape; `normed` is the tap in between."""
        return self.tap(name, self.tap(normed, self.num.rms_norm(x, self.hp.eps)) * weight.dense(self.num.dtype))

    def each(self, step: Callable[..., F], xs: Sequence[F], w: Block, s: Any) -> F:
        """A step that reads and changes what a position remembers: it looks at one sequence at a time.

        step  (*xs, w, s, c) of one sequence -> [T', ...], T' of its tokens
        xs    what the step reads of all tokens, [T, ...] each
        w     the block's weights
        s     the position's state; in a batch the states, one for each sequence

        Returns the results in the order of the tokens, [T, ...].
        """
        if not self.parts:
            return step(*xs, w, s, self)
        of_each = zip(self.parts, s, self.calls, strict=True)
        return np.concatenate([step(*(x[part] for x in xs), w, state, call) for part, state, call in of_each])

    @cached_property
    def calls(self) -> list["Call"]:
        """The same call for each of the parts. Written out: `replace` would take a fiftieth of a batch's time."""
        c = self
        return [Call(c.hp, c.num, c.pos[part], c.tapper, c.scores, c.position, c.named) for part in c.parts]

    def attention(self, q: F, k: F, v: F, w: Block, s: Any, scale: float, window: int = 0) -> F:
        """Attention of the new tokens to themselves and to what the position remembers.

        q       [T, H, D]  queries of the new tokens
        k, v    [T, G, D]  their keys and values, which are added to the cache
        w, s    the block's weights, and the position's state or states, as in `each`
        scale   factor of the scores
        window  how many of the newest tokens a query sees, itself among them; 0 for all

        Returns [T, H*D]. Source: build_attn_mha.
        """
        return self.each(partial(_attention, scale, window), [q, self.num.store(k), self.num.store(v)], w, s)


def _attention(scale: float, window: int, q: F, k: F, v: F, w: Block, s: KeyValues, c: Call) -> F:
    """Attention of one sequence, with llama.cpp's taps, as ops.attention.attention computes it: [T, H*D].

    q     [T, H, D]
    k, v  [T, G, D]  in the cache's dtype
    """
    k, v = s.append(k, v)  # [S, G, D]
    T, H, D = q.shape
    if c.tapper is not silent:
        k = c.tap("cache_k", k.astype(c.num.dtype).reshape(len(k), -1)).reshape(k.shape)
        v = c.tap("cache_v", v.astype(c.num.dtype).reshape(len(v), -1)).reshape(v.shape)
    wanted = c.num.scores and c.scores
    shape = (H, T, len(k)) if wanted else (0, 0, 0)
    kq, kq_soft_max = np.zeros(shape, q.dtype), np.zeros(shape, q.dtype)
    out = c.num.attention(np.ascontiguousarray(q), k, v, scale, kq, kq_soft_max, window)
    if wanted:
        c.tap("kq", kq)
        c.tap("kq_soft_max", kq_soft_max)
    return c.tap("kqv", out.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(T, H * D)
