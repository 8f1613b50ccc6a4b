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
    """

    hp: Any
    num: Numerics
    pos: Ints
    tapper: Tapper
    scores: bool = False
    position: int = -1
    named: Callable[[str], str] = str

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

    def attention(self, q: F, k: F, v: F, scale: float, window: int = 0) -> F:
        """Attention with llama.cpp's taps, as ops.attention.attention computes it.

        q       [T, H, D]  queries of the new tokens
        k, v    [S, G, D]  cached and new, in the cache's dtype
        scale   factor of the scores
        window  how many of the newest tokens a query sees, itself among them; 0 for all

        Returns [T, H*D]. Source: build_attn_mha.
        """
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
