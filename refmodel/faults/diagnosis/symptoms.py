"""What numbers look like before any hypothesis: signs that experienced people look for first."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from ...compare.rows import log_softmax, ratio
from ...compare.where import block_of
from ...model.model import Model
from .judging import Judged, errors_by_token

MANY = 30.0  # times the first token's error that later tokens must have
NEAR = 0.05  # how near a mean NLL must be to ln V


@dataclass(frozen=True)
class Symptom:
    """A sign: one word for programs, and what it means in a sentence."""

    code: str
    words: str


def symptoms(model: Model, other: Other, judged: Judged) -> list[Symptom]:
    """All signs in a judged healthy run."""
    wrong = set(judged.wrong)
    tokens = {tap: e for tap, e in errors_by_token(judged.seen, other).items() if tap in wrong}
    found = [*along_tokens(tokens), *along_calls(judged, wrong), *of_kinds(model, other, wrong), *of_sizes(judged, other, wrong)]
    return [*found, *of_logits(model, other)]


def along_tokens(tokens: dict[str, F]) -> Iterator[Symptom]:
    """The first token is right, and later ones are not."""
    rows = [e for e in tokens.values() if len(e) > 1]
    if rows and all(np.max(e[1:]) > MANY * e[0] for e in rows):
        yield Symptom(
            "first-token-fine",
            "the first token is right and later ones are not: look at RoPE, which does nothing at position 0, and at what reads "
            "earlier tokens",
        )


def along_calls(judged: Judged, wrong: set[str]) -> Iterator[Symptom]:
    """Only calls of many tokens are wrong, or only later calls."""
    calls = {int(tap.partition("@")[2] or 0) for tap in judged.seen.nmse}
    bad = {int(tap.partition("@")[2] or 0) for tap in wrong}
    if len(calls) > 1 and bad and 0 not in bad:
        yield Symptom("later-calls-only", "the first call is right and a later one is not: look at states and caches between calls")
    if len(calls) > 1 and bad == {0}:
        yield Symptom("prompt-only", "only the call of many tokens is wrong: look at layouts, the convolution, and chunks")


def of_kinds(model: Model, other: Other, wrong: set[str]) -> Iterator[Symptom]:
    """Only blocks of one kind are wrong."""
    layers = model.route(other.route).layers
    kinds = {model.kinds[layers[p]] for tap in wrong if (p := block_of(tap)) is not None}
    if len(set(model.kinds)) > 1 and len(kinds) == 1:
        yield Symptom("one-kind", f"only {kinds.pop()} blocks are wrong")


def of_sizes(judged: Judged, other: Other, wrong: set[str]) -> Iterator[Symptom]:
    """Theirs is ours but for its size."""
    for tap in list(wrong)[:1]:
        ours, theirs = judged.seen.ours.get(tap), other.taps[tap]
        if ours is not None and theirs.size == ours.size and np.isfinite(theirs).all():
            factor = ratio(float(np.sqrt(np.mean(np.square(theirs, dtype=np.float64)))), float(np.sqrt(np.mean(np.square(ours)))))
            if factor > 3 or factor < 1 / 3:
                yield Symptom("size", f"{tap} is {factor:.3g} times as large as it should be: look at norms, 1 + w, and scales")


def of_logits(model: Model, other: Other) -> Iterator[Symptom]:
    """The logits know nothing."""
    logits = other.taps["result_output"] if "result_output" in other.taps and "result_output" not in other.views else None
    ids = list(other.calls[0])
    if logits is None or len(ids) < 2 or logits.size != len(ids) * model.n_vocab or not np.isfinite(logits).all():
        return
    rows = logits.reshape(len(ids), -1).astype(np.float64)
    nll, guess = float(np.mean([-log_softmax(rows[t])[ids[t + 1]] for t in range(len(ids) - 1)])), float(np.log(model.n_vocab))
    if abs(nll - guess) < NEAR * guess:
        yield Symptom("guessing", f"mean NLL {nll:.2f} is that of guessing, ln V = {guess:.2f}: look at the embedding and the head")
