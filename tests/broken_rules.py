"""Engines that break one law each, and what is wrong with them: mistakes that programs have had, or could have.

Each is our own rule with one thing wrong. `ALSO` names the laws that find it besides its own: `recurrence` is the definition.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from refmodel.laws.engine import OURS, Engine, Rule, of_numerics

GOOD = of_numerics(OURS["numpy"])
rule, conv = GOOD.rule, GOOD.conv


@dataclass(frozen=True)
class Broken:
    """An engine with a mistake. what: the mistake in words; also: the other laws that find it."""

    what: str
    engine: Engine
    also: frozenset[str] = frozenset()


def with_rule(what: str, wrong: Rule, *also: str) -> Broken:
    return Broken(what, replace(GOOD, name=what, rule=wrong), frozenset(also))


def reads_first(q, k, v, g, beta, state):
    out, S = np.empty_like(v), state.copy()
    for t in range(len(v)):
        part = slice(t, t + 1)
        out[t] = np.einsum("hvk,hk->hv", S, q[t]) * np.exp(g[t])[:, None]
        S = rule(q[part], k[part], v[part], g[part], beta[part], S)[1]
    return out, S


def another_for_one_token(q, k, v, g, beta, state):
    return rule(q, k, v, g, beta * np.float32(0.9) if len(v) == 1 and beta.max() < 0.99 else beta, state)


def chunks_lose_a_decay(q, k, v, g, beta, state):
    g = g.copy()
    g[64::64] = 0
    return rule(q, k, v, g, beta, state)


def saturates(q, k, v, g, beta, state):
    out, S = rule(q, k, v, g, beta, state)
    return np.clip(out, -100, 100), np.clip(S, -100, 100)


def in_half_floats(q, k, v, g, beta, state):
    out, S = rule(q, k, v, g, beta, state)
    return np.where(np.abs(out) < 1e-20, 0, out).astype(np.float32), np.where(np.abs(S) < 1e-20, 0, S).astype(np.float32)


def at_least_some_beta(q, k, v, g, beta, state):
    return rule(q, k, v, g, np.maximum(beta, np.float32(0.01) * (v.max() > 0)).astype(np.float32), state)


def decays_have_a_floor(q, k, v, g, beta, state):
    return rule(q, k, v, np.maximum(g, np.float32(-12)), beta, state)


def never_all_of_a_value(q, k, v, g, beta, state):
    return rule(q, k, v, g, np.minimum(beta, np.float32(0.96)), state)


def grows_after_many(q, k, v, g, beta, state):
    out, S = rule(q, k, v, g, beta, state)
    return out, S * np.float32(1.3) if 70 < len(v) < 120 else S


def gates_of_a_neighbour(q, k, v, g, beta, state):
    return rule(q, k, v, np.roll(g, 1, axis=1), beta, state)


def norms_keys_itself(q, k, v, g, beta, state):
    with np.errstate(invalid="ignore"):
        return rule(q, k / np.linalg.norm(k, axis=-1, keepdims=True), v, g, beta, state)


def in_place(q, k, v, g, beta, state):
    out, after = rule(q, k, v, g, beta, state)
    state[:] = after
    return out, state


class Remembers:
    """Takes a state of zeros for the one that it had."""

    def __init__(self) -> None:
        self.last: np.ndarray | None = None

    def __call__(self, q, k, v, g, beta, state):
        stale = self.last is not None and self.last.shape == state.shape and not state.any()
        out, self.last = rule(q, k, v, g, beta, self.last if stale else state)
        return out, self.last


def taps_reversed(x, w, before):
    return conv(x, w[:, ::-1].copy(), before)


def pads_short_prompts(x, w, before):
    out, after = conv(x, w, before)
    if len(x) < len(before):
        after = np.concatenate([np.zeros((len(before) - len(x), x.shape[1]), np.float32), x])
    return out, after


def with_conv(what: str, wrong: Callable, *also: str) -> Broken:
    return Broken(what, replace(GOOD, name=what, conv=wrong), frozenset(also))


BROKEN: dict[str, Broken] = {
    "recurrence": with_rule("an output is read before its token is written", reads_first, "long"),
    "long": with_rule("the first token of each later chunk does not decay", chunks_lose_a_decay),
    "split": with_rule("generation has another beta than a prompt", another_for_one_token),
    "linear": with_rule("numbers are cut off at 100", saturates),
    "small": with_rule("numbers below 1e-20 are lost, as in half floats", in_half_floats),
    "idle": with_rule("a beta is at least 0.01", at_least_some_beta),
    "forgets": with_rule("a decay is at least exp(-12)", decays_have_a_floor),
    "overwrites": with_rule("a beta is at most 0.96", never_all_of_a_value),
    "bounded": with_rule("a state grows in long prompts", grows_after_many),
    "heads": with_rule("a head decays by its neighbour's gate", gates_of_a_neighbour, "recurrence", "long"),
    "padding": with_rule("keys are divided by their norm, also those of zeros", norms_keys_itself),
    "snapshot": with_rule("the state that is given is overwritten", in_place),
    "reset": with_rule("a state of zeros is taken for the old one", Remembers()),
    "conv_recurrence": with_conv("the taps are in the other order", taps_reversed, "conv_short"),
    "conv_short": with_conv("after a short prompt the older inputs are forgotten", pads_short_prompts),
}
