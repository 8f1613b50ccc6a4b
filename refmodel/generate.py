"""Greedy and seeded sampling on top of a session."""

from collections.abc import Iterator, Sequence

import numpy as np

from .arrays import F
from .model import Session


def generate(
    session: Session, prompt: Sequence[int], count: int, temperature: float = 0.0, top_k: int = 40, seed: int = 0
) -> Iterator[int]:
    """Feed the prompt, then yield up to `count` tokens, each fed back; the caller stops at an end-of-generation token.

    temperature  0 takes the likeliest token; above, tokens are drawn from the `top_k` likeliest with PCG64(seed)
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    tokens = list(prompt)
    for _ in range(count):
        row = session.forward(tokens, logits="last")[0]
        tokens = [int(row.argmax()) if temperature <= 0 else sampled(row, temperature, top_k, draw)]
        yield tokens[0]


def sampled(row: F, temperature: float, top_k: int, draw: np.random.Generator) -> int:
    """One of the top_k likeliest tokens of the logits [V]; a tie at the edge goes to the smaller id."""
    best = np.argsort(-row, kind="stable")[: max(1, top_k)]
    scaled = row[best].astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    return int(best[np.searchsorted(np.cumsum(p / p.sum()), draw.random(), side="right").clip(max=len(best) - 1)])
