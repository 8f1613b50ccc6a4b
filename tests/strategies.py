"""What Hypothesis draws: shapes in which no two axes agree, and arrays of trained magnitudes."""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from magnitudes import trained


def examples(few: int) -> int:
    """How many examples a slow test draws: a few in the suite, as many as any other under --hypothesis-profile=many."""
    asked = settings().max_examples
    return asked if asked == settings.get_profile("many").max_examples else few


def activations(r: np.random.Generator, T: int, n: int) -> np.ndarray:
    """What a matrix is multiplied with, float32 [T, n]: normal in every channel, but a few channels are far larger."""
    return (r.standard_normal((T, n)) * trained("channel of ffn_swiglu", r, n)).astype(np.float32)


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class DeltaRule:
    """Arguments of the gated delta rule, float32."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    log_decay: np.ndarray
    beta: np.ndarray
    state: np.ndarray

    @property
    def args(self) -> tuple[np.ndarray, ...]:
        return self.q, self.k, self.v, self.log_decay, self.beta, self.state

    def tokens(self, part: slice, state: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.q[part], self.k[part], self.v[part], self.log_decay[part], self.beta[part], state


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def delta_rule(seed: int, T: int, Hk: int = 3, Hv: int = 3, Dk: int = 7, Dv: int = 11) -> DeltaRule:
    r = np.random.default_rng(seed)
    f = lambda *shape: r.standard_normal(shape)
    arrays = (
        unit(f(T, Hk, Dk)),
        unit(f(T, Hk, Dk)),
        trained("value", r, T, Hv, Dv),
        np.where(
            r.random(Hv) < 0.5, trained("log decay of a token", r, T, Hv), -np.exp(r.uniform(-7, 2, (T, Hv)))
        ),  # or 0.999 to 1e-3
        trained("beta", r, T, Hv),
        trained("state", r, Hv, Dv, Dk),
    )
    return DeltaRule(*(a.astype(np.float32) for a in arrays))


def windows(n: int) -> st.SearchStrategy[tuple[int, int]]:
    """i < j of n blocks."""
    return st.integers(0, n - 1).flatmap(lambda i: st.tuples(st.just(i), st.integers(i + 1, n)))


def routes(n: int) -> st.SearchStrategy[str | list[int]]:
    """Of n blocks: skips, reversals, triple visits; one or two windows."""
    texts = st.lists(windows(n), min_size=1, max_size=2).map(lambda ws: "blocks:" + ";".join(f"{i},{j}" for i, j in ws))
    return st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n) | texts
