"""Probes that let the model write an answer: math, emotions, reasoning, in the formats of RYS tools and with their scorers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SweepError
from ...machine.boundary import from_json
from ...machine.files import text_of
from . import made
from .probe import Answer, Facts, digest
from .scorers import Mark, cf_eq, cf_math, ng_eq, ng_math, reasoning

RATE = (
    "Read the situation. Rate how strongly the person feels each of these emotions, from 0 (not at all) to 10 (as strongly as "
    "can be): {emotions}.\n\nSituation: {situation}\n\n"
)
IN_ORDER = "Answer with the four numbers only, in this order, with commas between them."
BY_NAME = "Answer with one line for each emotion: its name, a colon, its number. Write nothing else."


@dataclass(frozen=True)
class Prompt:
    """What is asked, and how long the answer may be.

    tokens  ids, up to the answer
    most    tokens of the answer
    """

    tokens: tuple[int, ...]
    most: int


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    text     the answer, without the token that ends it
    trouble  `mute`, `loop` or `garbage` if it is broken; empty if it is not
    """

    text: str
    trouble: str = ""


@dataclass(frozen=True)
class Question:
    """One question: the words to ask, and how an answer is scored."""

    words: str
    mark: Callable[[str], Mark] = field(compare=False)
    category: str = ""


@dataclass(frozen=True)
class Family:
    """One kind of question with one scorer.

    make  (number of questions, which half) -> records that are generated here
    read  a record -> a question; KeyError, TypeError, ValueError or AttributeError for one of another form
    most  tokens of an answer
    size  how many questions by default
    """

    make: Callable[[int, str], list[dict[str, Any]]]
    read: Callable[[Mapping[str, Any]], Question]
    most: int
    size: int


def sum_of(record: Mapping[str, Any], score: Callable[[int, str], Mark]) -> Question:
    """A record {question, answer} of a math file."""
    answer = int(record["answer"])
    return Question(str(record["question"]), lambda text: score(answer, text))


def feelings_of(record: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """The emotions of a record and their reference: `emotions` and `reference`, or a `reference_answer` by name or by number."""
    if "emotions" in record:
        return list(record["emotions"]), [float(value) for value in record["reference"]]
    answer = record["reference_answer"]
    if "emotion1" in answer:
        return [answer[f"emotion{k}"] for k in range(1, 5)], [float(answer[f"emotion{k}_score"]) for k in range(1, 5)]
    return list(answer), [float(value) for value in answer.values()]


def ng_feelings(record: Mapping[str, Any]) -> Question:
    """A record of an EQ file with Ng's scorer: {prompt, reference_answer}, or {situation, emotions, reference}."""
    emotions, values = feelings_of(record)
    words = record.get("prompt") or RATE.format(emotions=", ".join(emotions), situation=record["situation"]) + BY_NAME
    return Question(str(words), lambda text: ng_eq(dict(zip(emotions, values)), text))


def cf_feelings(record: Mapping[str, Any]) -> Question:
    """A record of an EQ file with circuit-finder's scorer."""
    emotions, values = feelings_of(record)
    words = record.get("prompt") or RATE.format(emotions=", ".join(emotions), situation=record["situation"]) + IN_ORDER
    return Question(str(words), lambda text: cf_eq(values, text))


def reasoned(record: Mapping[str, Any]) -> Question:
    """A record {prompt or question, answer, type or category}."""
    answer, words = str(record["answer"]), record.get("prompt") or record["question"]
    return Question(str(words), lambda text: reasoning(answer, text), str(record.get("type") or record.get("category") or ""))


FAMILIES = {
    "ng-math": Family(made.math, lambda record: sum_of(record, ng_math), 64, 16),
    "cf-math": Family(made.math, lambda record: sum_of(record, cf_math), 64, 16),
    "ng-eq": Family(made.eq, ng_feelings, 256, 16),
    "cf-eq": Family(made.eq, cf_feelings, 64, 16),
    "reasoning": Family(made.reasoning, reasoned, 256, 20),
}


def records_of(path: Path) -> list[Mapping[str, Any]]:
    """The records of a JSON file, an object of records or a list; of a .jsonl one a line. SweepError if it is none of them."""
    cure = "expected JSON, an object or a list of records"
    text = text_of(path)
    if path.suffix == ".jsonl":
        found = [from_json(line, str(path), SweepError, cure) for line in text.splitlines() if line.strip()]
    else:
        found = from_json(text, str(path), SweepError, cure)
    records = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise SweepError(f"{path}: holds no records; {cure}")
    return records


def questions_of(family: str, records: Sequence[Mapping[str, Any]], where: str) -> list[Question]:
    """The questions of these records. SweepError names the first that is of another form."""
    questions = []
    for number, record in enumerate(records):
        try:
            questions.append(FAMILIES[family].read(record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SweepError(
                f"{where}: question {number} is none of {family} ({type(error).__name__}: {error}); docs/sweep.md has the forms"
            ) from None
    return questions


@dataclass(frozen=True)
class Written:
    """A probe that lets the model write.

    name         of the probe
    questions    in order
    prompts      what the model is asked: question by question
    held_out_of  the probe whose winners this one checks; empty for a probe of its own
    kind         a key of FAMILIES
    records      what the questions were read from
    """

    name: str
    questions: tuple[Question, ...]
    prompts: tuple[Prompt, ...]
    held_out_of: str
    kind: str
    records: str

    @property
    def facts(self) -> Facts:
        """Higher is better."""
        asked = [(prompt.tokens, prompt.most) for prompt in self.prompts]
        return Facts(self.name, digest(self.kind, self.records, asked), len(self.questions), held_out_of=self.held_out_of)

    def answer(self, number: int, reply: Reply) -> Answer:
        """The score of one reply. A broken one in which nothing can be read scores 0, whatever the scorer gives silence."""
        mark = self.questions[number].mark(reply.text)
        if reply.trouble and not mark.extracted:
            return Answer(0.0, f"[{reply.trouble}] {reply.text}".rstrip())
        return Answer(mark.score, reply.text)


NOT_ASKED = "[not asked: the first answers were broken]"
"""The text of questions that a route was not asked any more; they score 0."""


def written_probe(
    name: str, kind: str, given: Path | int | None, ask: Callable[[Sequence[str]], list[tuple[int, ...]]], held_out_of: str = ""
) -> Written:
    """A probe of one of FAMILIES.

    given        a file of questions, or how many of our own to take; None: as many as usual
    ask          texts of questions -> the ids that the model reads, up to its answer
    held_out_of  as Written has it; then our own questions are those of the held-out half

    SweepError for a file of another form.
    """
    family = FAMILIES[kind]
    if isinstance(given, Path):
        records: Sequence[Mapping[str, Any]] = records_of(given)
    else:
        records = family.make(given or family.size, made.HALVES[bool(held_out_of)])
    questions = questions_of(kind, records, str(given or name))
    prompts = [Prompt(ids, family.most) for ids in ask([question.words for question in questions])]
    return Written(name, tuple(questions), tuple(prompts), held_out_of, kind, json.dumps(records, sort_keys=True))
