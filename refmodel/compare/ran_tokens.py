"""Which tokens a program ran, found in what its first block puts out."""

from collections.abc import Sequence

import numpy as np

from ..arrays import F, Ints
from ..dumps.names import BLOCK
from ..model.model import Model
from ..numerics import REFERENCE
from .arranging import Arranged
from .placing import CLOSE
from .rows import nmse_of

CANDIDATES = 12  # ids that are tried for a token, of each of two guesses
MOST = 16  # other tokens that are looked for
PART = 8192  # embeddings that are decoded at a time


def of_first_block(model: Model, kept: Arranged) -> list[int] | None:
    """The ids of the first call under which block 0 puts out what a dump has; None if it has not all of it, or no ids are found.

    A token is found where every one before it is right: ids are tried whose embeddings have the direction of the output, or of the
    output without what the block adds for the given id. Only ids whose output is the dump's are believed.
    """
    tap = f"{BLOCK}-0"
    found = next((f for f in kept.found if f.place.tap == tap and f.numbers.whole and f.place.first == 0), None)
    if found is None:
        return None
    rows = found.place.arranged(found.numbers.read(), kept.ours[tap]).astype(np.float64)
    ids = list(kept.calls[0])
    for _ in range(MOST):
        ours = output_of(model, ids)[: len(rows)]
        at = next((t for t, (a, b) in enumerate(zip(ours, rows)) if not nmse_of(a, b) <= CLOSE), None)
        if at is None:
            return ids
        new = fitting(model, ids[:at], rows[at], ours[at] - embeddings(model, np.array(ids[at : at + 1]))[0])
        if new is None:
            return None
        ids[at] = new
    return None


def fitting(model: Model, before: Sequence[int], row: F, added: F) -> int | None:
    """The id after some tokens under which block 0 puts out a row [E]; None if none of the likely ones does."""
    for candidate in likely(model, np.stack([row, row - added])):
        if nmse_of(output_of(model, [*before, candidate])[-1], row) <= CLOSE:
            return candidate
    return None


def likely(model: Model, rows: F) -> list[int]:
    """The ids whose embeddings are nearest in direction to each of some rows [k, E], the nearest first."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    cosine = np.concatenate([unit @ directions(model, start).T for start in range(0, model.n_vocab, PART)], axis=1)
    best = np.argsort(-cosine, axis=1)[:, :CANDIDATES]
    return list(dict.fromkeys(int(i) for pair in best.T for i in pair))


def directions(model: Model, start: int) -> F:
    """The embeddings from one id on, each of length 1."""
    e = embeddings(model, np.arange(start, min(start + PART, model.n_vocab)))
    return e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-30)


def embeddings(model: Model, ids: Ints) -> F:
    """The rows of the embedding [k, E], float64."""
    return REFERENCE.embed(model.weights["token_embd.weight"], ids, np.float32).astype(np.float64)


def output_of(model: Model, ids: Sequence[int]) -> F:
    """What block 0 puts out for a sequence from its start, [T, E], float64."""
    out: dict[str, F] = {}

    def keep(name: str, x: F) -> F:
        out[name] = x.astype(np.float64)
        return x

    model.session("layers:0", REFERENCE, keep).forward(ids, "last")
    return out[f"{BLOCK}-0"]
