"""What one call of a model hands to its blocks: hyperparameters, numerics, positions, and the tap."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import F, Ints
from ..machine.threads import computing
from .numerics import Numerics
from .taps import Tapper, silent
from .weights import Output, Share, Weight


@contextmanager
def passing() -> Iterator[None]:
    """Around a forward pass: kernels may run, and a broken model may overflow; who compares says where."""
    with computing(), np.errstate(over="ignore", invalid="ignore"):
        yield


@dataclass(frozen=True)
class Call:
    """The context (c) of every step of an architecture.

    hp        the architecture's Hparams
    num       the numerics
    pos       [T] positions of the new tokens
    tapper    who looks at intermediates
    scores    whether attention's scores and weights are made, and shown
    position  where in the route the block stands, N in a tap's name; -1 outside of blocks
    named     what a tap is called instead: a prediction block is a block of other names
    """

    hp: Any
    num: Numerics
    pos: Ints
    tapper: Tapper
    scores: bool = False
    position: int = -1
    named: Callable[[str], str] = str

    def at(self, position: int) -> "Call":
        """The same call at a position of the route."""
        return replace(self, position=position)

    def tap(self, name: str, x: F, transposed: bool = False) -> F:
        """Show x under llama.cpp's name; the pass goes on with what comes back. `name#k` becomes `name-N#k`.

        transposed  show it with rows and columns exchanged, as llama.cpp has it; what comes back is turned back
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
        """x [T, I] times the matrix w [O, I], tapped, plus its bias where the file has one (tap `name#bias`): [T, O]."""
        y = self.tap(name, self.num.linear(w, x))
        return y if w.bias is None else self.tap(f"{name}#bias", y + w.bias.dense(self.num.dtype))

    def logits(self, h: F, output: Output) -> F:
        """h [T, E] times the head [V, E], plus its bias where the file has one: [T, V]. llama.cpp names nothing but the sum."""
        y = self.num.linear(output, h)
        return y if output.bias is None else y + output.bias.dense(self.num.dtype)

    def norm(self, name: str, x: F, weight: Weight, normed: str = "norm") -> F:
        """The RMS norm of x over its last axis times a weight of that length, x's shape; `normed` is the tap in between."""
        return self.tap(name, self.tap(normed, self.num.rms_norm(x, self.hp.eps)) * weight.dense(self.num.dtype))

    def attention(self, q: F, k: F, v: F, scale: float, window: int = 0) -> F:
        """Attention of q [T, H, D] over the cache k, v [S, G, D] or its newest `window`, with llama.cpp's taps: [T, H*D]."""
        T, H, D = q.shape
        if self.tapper is not silent:
            k = self.tap("cache_k", k.astype(self.num.dtype).reshape(len(k), -1)).reshape(k.shape)
            v = self.tap("cache_v", v.astype(self.num.dtype).reshape(len(v), -1)).reshape(v.shape)
        wanted = self.num.scores and self.scores
        shape = (H, T, len(k)) if wanted else (0, 0, 0)
        kq, kq_soft_max = np.zeros(shape, q.dtype), np.zeros(shape, q.dtype)
        out = self.num.attention(np.ascontiguousarray(q), k, v, scale, kq, kq_soft_max, window)
        if wanted:
            self.tap("kq", kq)
            self.tap("kq_soft_max", kq_soft_max)
        return self.tap("kqv", out.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(T, H * D)
