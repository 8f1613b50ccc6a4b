"""Probes that need one pass a question: which of some endings a model finds likelier, and how it spreads over the ten digits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import F, Ints
from ...errors import SweepError
from ...tokenizer import Tokenizer
from .probe import Answer, Call, Facts, Unrouted, digest
from .text import log_likelihoods
from .written import records_of

Asker = Callable[[Sequence[str]], list[tuple[int, ...]]]
"""Texts of questions -> the token ids that the model reads, up to its answer."""


@dataclass(frozen=True)
class Choice:
    """One question with its endings.

    tokens  ids up to the ending
    endings ids of each
    texts   their words
    right   the number of the right one
    """

    tokens: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    right: int


@dataclass(frozen=True)
class Choices:
    """The score is the probability of the right ending among all of its question, by the log-likelihoods of their tokens.

    name, held_out_of  as of every probe
    items              the questions
    """

    name: str
    items: tuple[Choice, ...]
    held_out_of: str = ""

    @property
    def facts(self) -> Facts:
        """Higher is better, from 0 to 1."""
        asked = [(item.tokens, item.endings, item.right) for item in self.items]
        return Facts(self.name, digest("choices", asked), len(self.items), held_out_of=self.held_out_of)

    def calls(self, first: int, stop: int, unrouted: Unrouted) -> list[Call]:
        """A sequence for each ending."""
        return [
            Call(item.tokens + ending[:-1], partial(likelihood, np.array(ending)), len(item.tokens) - 1)
            for item in self.items[first:stop]
            for ending in item.endings
        ]

    def answers(self, first: int, stop: int, taken: Sequence[F]) -> list[Answer]:
        """The share of the right ending; the text is the likeliest one."""
        out, rest = list[Answer](), list(taken)
        for item in self.items[first:stop]:
            sums = np.array([float(rest.pop(0)[0]) for _ in item.endings])
            shares = np.exp(sums - sums.max())
            out.append(Answer(float(shares[item.right] / shares.sum()), item.texts[int(sums.argmax())]))
        return out


def likelihood(ending: Ints, logits: F) -> F:
    """The log-likelihood of the ending, [1], from the logits [T, V] at the places before its tokens."""
    return log_likelihoods(logits, ending).sum(keepdims=True)


@dataclass(frozen=True)
class Digits:
    """The distribution over the digits 0 to 9 where the answer begins; nothing is written.

    The score is the probability of the right digit among the ten; without a right one, their mean over 9. What is recorded with
    it: the mean, its standard deviation, the ten's share of all tokens (coverage), and the log-odds of the right digit.

    prompts  token ids, question by question
    right    the right digits; None where a question has none
    tokens   the ids of the ten digits
    """

    name: str
    prompts: tuple[tuple[int, ...], ...]
    right: tuple[int | None, ...]
    tokens: tuple[int, ...]
    held_out_of: str = ""

    @property
    def facts(self) -> Facts:
        """Higher is better, from 0 to 1."""
        parts = digest("digits", self.prompts, self.right, self.tokens)
        return Facts(self.name, parts, len(self.prompts), held_out_of=self.held_out_of)

    def calls(self, first: int, stop: int, unrouted: Unrouted) -> list[Call]:
        """A sequence for each question."""
        return [Call(tokens, partial(spread, np.array(self.tokens)), len(tokens) - 1) for tokens in self.prompts[first:stop]]

    def answers(self, first: int, stop: int, taken: Sequence[F]) -> list[Answer]:
        """One score a question."""
        return [digit_answer(p, right) for p, right in zip(taken, self.right[first:stop], strict=True)]


def spread(tokens: Ints, logits: F) -> F:
    """The probabilities of ten tokens after the last one, float64 [10], from logits [1, V]."""
    last = logits[-1].astype(np.float64)
    shares = np.exp(last - last.max())
    return shares[tokens] / shares.sum()


def digit_answer(p: F, right: int | None) -> Answer:
    """The answer to one question from the probabilities [10] of the digits."""
    coverage = float(p.sum())
    among = p / coverage if coverage > 0 else np.full(10, 0.1)
    mean = float(among @ np.arange(10))
    deviation = float(np.sqrt(among @ np.square(np.arange(10) - mean)))
    words = f"mean {mean:.3f}, deviation {deviation:.3f}, coverage {coverage:.3g}"
    if right is None:
        return Answer(mean / 9, words)
    share = min(max(float(among[right]), 1e-12), 1 - 1e-12)
    return Answer(float(among[right]), f"{words}, log-odds {np.log(share / (1 - share)):.3f}")


def choices_probe(name: str, path: Path, ask: Asker, tokenizer: Tokenizer, held_out_of: str = "") -> Choices:
    """A probe over records {question, choices, answer}: `answer` is the number of the right ending, its letter, or its words.

    SweepError names the record that is of another form.
    """
    records = records_of(path)
    read = [read_choice(path, number, record) for number, record in enumerate(records)]
    prompts = ask([words for words, _, _ in read])
    items = []
    for tokens, (_, texts, right) in zip(prompts, read, strict=True):
        endings = [tuple(tokenizer.encode(joined(text), add_special=False, parse_special=False)) for text in texts]
        items.append(Choice(tokens, tuple(endings), tuple(texts), right))
    return Choices(name, tuple(items), held_out_of)


def joined(text: str) -> str:
    """An ending as it follows the question: with a space before it."""
    return text if text[:1].isspace() else f" {text}"


def read_choice(path: Path, number: int, record: Mapping[str, Any]) -> tuple[str, list[str], int]:
    """(question, endings, number of the right one) of a record. SweepError if it is of another form."""
    try:
        texts, answer = [str(text) for text in record["choices"]], record["answer"]
        if isinstance(answer, str):
            right = texts.index(answer) if answer in texts else "ABCDEFGHIJ".index(answer.strip().upper())
        else:
            right = int(answer)
        if len(texts) < 2 or not 0 <= right < len(texts) or not all(texts):
            raise ValueError(f"answer {answer!r} of {len(texts)} choices")
        return str(record["question"]), texts, right
    except (KeyError, TypeError, ValueError) as error:
        raise SweepError(f"{path}: record {number} has no question, choices, answer ({error}); see docs/sweep.md") from None


def digits_probe(name: str, path: Path, ask: Asker, tokenizer: Tokenizer, held_out_of: str = "") -> Digits:
    """A probe over records {prompt, answer}, the answer a digit or left out. SweepError for another form, or without tokens."""
    words, right = list[str](), list[int | None]()
    for number, record in enumerate(records_of(path)):
        try:
            words.append(str(record.get("prompt") or record["question"]))
            right.append(None if record.get("answer") is None else range(10)[int(record["answer"])])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SweepError(f"{path}: record {number} has no prompt and digit ({error}); docs/sweep.md has the form") from None
    tokens = [tokenizer.encode(str(digit), add_special=False, parse_special=False)[-1] for digit in range(10)]
    if len(set(tokens)) < 10:
        raise SweepError(f"--probe {name}: the vocabulary has no token for each digit; take another probe")
    return Digits(name, tuple(ask(words)), tuple(right), tuple(tokens), held_out_of)
