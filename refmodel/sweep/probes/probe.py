"""What every probe is: a list of questions, each with a score, and how a model is asked them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...arrays import F

Unrouted = Callable[[Sequence[int]], F]
"""Token ids [T] -> the logits [T, V] of the model in its own order."""


@dataclass(frozen=True)
class Call:
    """One sequence that is fed from its start, and what is kept of its logits.

    tokens  its token ids [T]
    take    logits [T - first, V] -> an array that `answers` of the probe reads; it must not keep the logits
    first   the first token whose logits are read
    """

    tokens: tuple[int, ...]
    take: Callable[[F], F]
    first: int = 0


@dataclass(frozen=True)
class Answer:
    """The score of one question, and what was answered, for a reader of the ledger; empty if nothing was written."""

    score: float
    text: str = ""


@dataclass(frozen=True)
class Facts:
    """What a ledger keeps of a probe, to know it again.

    name         unique in a sweep; the key in exports
    digest       sha256 over all that the scores depend on, apart from the model
    questions    how many there are
    lower        whether a lower score is better
    group        how many neighbouring questions are resampled together, because they depend on each other
    held_out_of  the probe whose winners these questions check; empty for a probe that routes are chosen by
    """

    name: str
    digest: str
    questions: int
    lower: bool = False
    group: int = 1
    held_out_of: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        better = "lower" if self.lower else "higher"
        plain = {"digest": self.digest, "questions": self.questions, "better": better, "group": self.group}
        return plain | {"held_out_of": self.held_out_of}


class Forced(Protocol):
    """A probe that needs no generation: it reads the logits of given tokens."""

    @property
    def facts(self) -> Facts:
        """What a ledger keeps of it."""
        ...

    def calls(self, first: int, stop: int, unrouted: Unrouted) -> list[Call]:
        """The sequences to feed for the questions from `first` up to `stop`."""
        ...

    def answers(self, first: int, stop: int, taken: Sequence[F]) -> list[Answer]:
        """The answers to these questions, from what each call's `take` returned."""
        ...


def digest(*parts: Any) -> str:
    """Hexadecimal sha256 over values that JSON can express."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
