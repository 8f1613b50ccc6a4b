"""Random companies: sequences that join a batch, are fed in random groups and pieces, fork and leave; and what each gives alone."""

from dataclasses import dataclass, field

import numpy as np

from refmodel import Model
from refmodel.model.batch import Batch


@dataclass
class Life:
    """What happened to one sequence: the calls that it was fed, and the logits of each."""

    route: list[int]
    calls: list[list[int]] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)

    def fork(self) -> "Life":
        return Life(self.route, [*self.calls], [*self.logits])


def random_route(r: np.random.Generator, n_layer: int) -> list[int]:
    """The file's order, one with a window run twice, or blocks in any order."""
    kind = r.integers(3)
    i, j = sorted(r.choice(n_layer + 1, 2, replace=False)) if kind == 1 else (0, 0)
    return r.integers(0, n_layer, r.integers(1, 2 * n_layer + 1)).tolist() if kind == 2 else [*range(j), *range(i, n_layer)]


def live(batch: Batch, r: np.random.Generator, steps: int, most: int) -> list[Life]:
    """Do `steps` random things with a batch; calls have at most `most` tokens. Returns all lives, those that ended too."""
    lives, here = list[Life](), dict[int, Life]()
    for step in range(steps):
        kind = r.choice(["add", "fork", "drop", "feed", "feed", "feed"]) if here else "add"
        some = [int(handle) for handle in r.permutation(list(here))] if here else []
        if kind == "add":
            lives.append(Life(random_route(r, batch.tensors.n_layer)))
            here[batch.add(lives[-1].route)] = lives[-1]
        elif kind == "fork":
            lives.append(here[some[0]].fork())
            here[batch.fork(some[0])] = lives[-1]
        elif kind == "drop" and len(here) > 1:
            batch.drop(some[0])
            del here[some[0]]
        else:
            fed = some[: r.integers(1, len(some) + 1)] if step < steps - 1 else some
            calls = {handle: r.integers(0, batch.n_vocab, r.integers(1, most + 1)).tolist() for handle in fed}
            for handle, logits in batch.forward(calls).items():
                here[handle].calls.append(calls[handle])
                here[handle].logits.append(logits)
    return [life for life in lives if life.calls]


def alone(model: Model, numerics: str, life: Life) -> np.ndarray:
    """The logits of a life in a batch of its own: in one call if the numerics lets any split give the same bits."""
    batch = model.batch(numerics)
    handle = batch.add(life.route)
    calls = [[token for call in life.calls for token in call]] if batch.num.by_token else life.calls
    return np.concatenate([batch.forward({handle: tokens})[handle] for tokens in calls])


def in_session(model: Model, numerics: str, life: Life) -> np.ndarray:
    """The logits of a life in a session, in the calls of the life."""
    session = model.session(life.route, numerics)
    return np.concatenate([session.forward(tokens) for tokens in life.calls])


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """How many bits of two arrays of one shape and dtype differ; NaNs count by their bits."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.unpackbits(np.ascontiguousarray(a).view(np.uint8) ^ np.ascontiguousarray(b).view(np.uint8)).sum())
