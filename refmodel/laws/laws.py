"""The laws: what every implementation of the gated delta rule has to keep, each as a check of an engine on one random case.

A law is a function (engine, case) that raises AssertionError. `recurrence` alone is the definition, on a mild case; the others
say what holds in general, and find what a comparison on mild cases does not: another path for one token or for a chunk, a bound on
a gate, a state that is not left alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import F
from . import exact
from .engine import Engine


@dataclass(frozen=True)
class Case:
    """One random case.

    seed     of its numbers
    T        tokens
    cut      1 to T - 1, where it is split
    H, Dk, Dv, C, K  sizes; no two of T, H, Dk, Dv are equal
    """

    seed: int
    T: int
    cut: int
    H: int
    Dk: int
    Dv: int
    C: int
    K: int

    def random(self) -> np.random.Generator:
        """Its random numbers, from the start."""
        return np.random.default_rng(self.seed)

    def arguments(self, T: int | None = None) -> list[F]:
        """q, k, v, log_decay, beta and state of a mild case: gates of a trained model, betas from 0.05 to 0.95."""
        r, T = self.random(), self.T if T is None else T
        q, k = (unit(r.standard_normal((T, self.H, self.Dk))) for _ in range(2))
        v = r.standard_normal((T, self.H, self.Dv))
        log_decay = -np.exp(r.uniform(-7, 1.5, (T, self.H)))
        beta = r.uniform(0.05, 0.95, (T, self.H))
        state = r.standard_normal((self.H, self.Dv, self.Dk))
        return [np.ascontiguousarray(x, np.float32) for x in (q, k, v, log_decay, beta, state)]

    def inputs(self, T: int | None = None) -> list[F]:
        """x, w and what is remembered, of the convolution."""
        r, T = self.random(), self.T if T is None else T
        shapes = ((T, self.C), (self.C, self.K), (self.K - 1, self.C))
        return [r.standard_normal(shape).astype(np.float32) for shape in shapes]


def unit(x: F) -> F:
    """Vectors of the last axis with norm 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tokens(arguments: Sequence[F], part: slice, state: F | None = None) -> list[F]:
    """The arguments of some tokens only, from the given state or the same."""
    return [x[part].copy() for x in arguments[:5]] + [(arguments[5] if state is None else state).copy()]


def run(engine: Engine, arguments: Sequence[F]) -> tuple[F, F]:
    """The engine's outputs and state; copies are given, so that what it does to them changes no law but its own."""
    out, state = engine.rule(*(x.copy() for x in arguments))
    return np.array(out), np.array(state)


def alike(engine: Engine, got: F, want: F, what: str, scale: float = 0.0) -> None:
    """AssertionError unless two arrays differ by rounding only: at most the tolerance of the largest number, or of `scale`."""
    assert got.shape == want.shape, f"{what} has shape {got.shape}; expected {want.shape}"
    assert np.isfinite(got).all(), f"{what} is not finite"
    largest = max(float(np.abs(want).max(initial=0)), scale)
    worst = float(np.abs(got.astype(np.float64) - want).max(initial=0))
    assert worst <= engine.tolerance * largest, f"{what} is off by {worst:.1e}, where the largest number is {largest:.1e}"


def recurrence(engine: Engine, case: Case) -> None:
    """Outputs and state are those of the recurrence in float64."""
    a = case.arguments()
    for got, want, what in zip(run(engine, a), exact.rule(*a), ("the output", "the state"), strict=True):
        alike(engine, got, want, what)


def long(engine: Engine, case: Case) -> None:
    """So they are for lengths about those of chunks, where a program changes from one chunk to the next."""
    T = (63, 64, 65, 66, 127, 128, 129, 130)[case.seed % 8]
    a = case.arguments(T)
    a[3] *= np.float32(0.1)  # mild decays, or nothing of an earlier chunk is left
    for got, want, what in zip(run(engine, a), exact.rule(*a), ("the output", "the state"), strict=True):
        alike(engine, got, want, f"{what} of {T} tokens")


def split(engine: Engine, case: Case) -> None:
    """Any split of the tokens is one call; also token by token, as generation does."""
    a = case.arguments()
    whole, last = run(engine, a)
    for ends in ([case.cut, case.T], list(range(1, case.T + 1))):
        state, start, parts = a[5], 0, []
        for end in ends:
            out, state = run(engine, tokens(a, slice(start, end), state))
            parts.append(out)
            start = end
        alike(engine, np.concatenate(parts), whole, f"the output in calls that end at {ends}")
        alike(engine, state, last, f"the state after calls that end at {ends}")


def linear(engine: Engine, case: Case) -> None:
    """Values and state times a thousand give outputs and state times a thousand; and sums give sums."""
    a, b = case.arguments(), case.arguments()
    r = case.random()
    b[2], b[5] = r.standard_normal(a[2].shape).astype(np.float32), r.standard_normal(a[5].shape).astype(np.float32)
    for factor in (1.0, 1000.0):
        both = [*a[:2], np.float32(factor) * a[2] + b[2], *a[3:5], np.float32(factor) * a[5] + b[5]]
        for got, one, other in zip(run(engine, both), run(engine, a), run(engine, b), strict=True):
            alike(engine, got, factor * one.astype(np.float64) + other, f"of {factor:g} a + b")


def small(engine: Engine, case: Case) -> None:
    """Values and state times 2^-80 give outputs and state times 2^-80: nothing is added, or lost below some size."""
    a = case.arguments()
    tiny = [*a[:2], a[2] * np.float32(2.0**-80), *a[3:5], a[5] * np.float32(2.0**-80)]
    for got, want in zip(run(engine, tiny), run(engine, a), strict=True):
        alike(engine, got.astype(np.float64) * 2.0**80, want, "of numbers times 2^-80")


def idle(engine: Engine, case: Case) -> None:
    """With beta 0 and g 0 the state stays as it is, to the bit."""
    a = case.arguments()
    a[3][:], a[4][:] = 0, 0
    _, state = run(engine, a)
    assert np.array_equal(state, a[5]), "the state is another after tokens with beta 0 and g 0"


def forgets(engine: Engine, case: Case) -> None:
    """After a token with g of -90 nothing is left of a state, however large."""
    a = case.arguments()
    a[3][0] = -90
    huge = [*a[:5], a[5] * np.float32(1e6)]
    for got, want, what in zip(run(engine, huge), run(engine, [*a[:5], 0 * a[5]]), ("the output", "the state"), strict=True):
        alike(engine, got, want, f"{what} after a token that forgets")


def overwrites(engine: Engine, case: Case) -> None:
    """A token with beta 1 makes the state answer its key with its value."""
    a = case.arguments(1)
    a[4][:], a[5] = 1, a[5] * np.float32(10)
    _, state = run(engine, a)
    alike(engine, np.einsum("hvk,hk->hv", state, a[1][0]), a[2][0], "what the state answers", scale=float(np.abs(a[5]).max()))


def bounded(engine: Engine, case: Case) -> None:
    """Tokens without values do not let a state grow, however many there are."""
    a = case.arguments(96)
    a[1][:], a[2][:], a[3][:] = a[1][0], 0, 0  # one key: what is orthogonal to it stays, and nearly all of a state does
    _, state = run(engine, a)
    before, after = (np.linalg.norm(S.astype(np.float64), axis=(1, 2)) for S in (a[5], state))
    assert (after <= before * (1 + engine.tolerance)).all(), f"a state grew by {np.max(after / before):.4g}"


def heads(engine: Engine, case: Case) -> None:
    """Heads in another order give the same numbers in that order."""
    a = case.arguments()
    order = case.random().permutation(case.H)
    other = run(engine, [*(x[:, order] for x in a[:5]), a[5][order]])
    out, state = run(engine, a)
    alike(engine, other[0], out[:, order], "the output with heads in another order")
    alike(engine, other[1], state[order], "the state with heads in another order")


def padding(engine: Engine, case: Case) -> None:
    """Tokens of zeros (beta and g are 0 too) before and after change nothing."""
    a = case.arguments()
    n = 1 + case.seed % 3
    for before, after in ((n, 0), (0, n), (1, n)):
        padded = [np.pad(x, [(before, after)] + [(0, 0)] * (x.ndim - 1)) for x in a[:5]]
        out, state = run(engine, [*padded, a[5]])
        plain, last = run(engine, a)
        alike(engine, out[before : before + case.T], plain, f"the output with {before} and {after} tokens of zeros")
        alike(engine, state, last, f"the state with {before} and {after} tokens of zeros")


def snapshot(engine: Engine, case: Case) -> None:
    """What is given is left as it is: a state that was kept can be gone back to."""
    a = case.arguments()
    given = [x.copy() for x in a]
    engine.rule(*given)
    for was, now, name in zip(a, given, ("q", "k", "v", "log_decay", "beta", "state"), strict=True):
        assert np.array_equal(was, now), f"{name} was changed"


def reset(engine: Engine, case: Case) -> None:
    """A call depends on nothing but its arguments: a sequence that begins anew has no memory of another."""
    a = case.arguments()
    a[5][:] = 0
    first = run(engine, a)
    run(engine, case.arguments())
    for got, want in zip(run(engine, a), first, strict=True):
        alike(engine, got, want, "of the same call after another")


def conv_recurrence(engine: Engine, case: Case) -> None:
    """The convolution is that of its definition, of prompts longer than its kernel."""
    assert engine.conv
    a = case.inputs(case.K + case.T)
    for got, want, what in zip(engine.conv(*(x.copy() for x in a)), exact.conv(*a), ("the output", "the memory"), strict=True):
        alike(engine, np.array(got), want, f"{what} of the convolution")


def conv_short(engine: Engine, case: Case) -> None:
    """So it is of prompts shorter than its kernel, one after the other: what is remembered then is not all from one call."""
    assert engine.conv
    x, w, memory = case.inputs(3 * case.K)
    start = 0
    while start < len(x):
        end = start + 1 + (case.seed + start) % max(case.K - 2, 1)
        want, after = exact.conv(x[start:end], w, memory)
        got, kept = engine.conv(x[start:end].copy(), w.copy(), memory.copy())
        alike(engine, np.array(got), want, f"the output of {end - start} tokens")
        alike(engine, np.array(kept), after, f"the memory after {end - start} tokens")
        memory, start = after.astype(np.float32), end


Law = Callable[[Engine, Case], None]
LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        *(recurrence, long, split, linear, small, idle, forgets, overwrites, bounded, heads, padding, snapshot, reset),
        *(conv_recurrence, conv_short),
    )
}
