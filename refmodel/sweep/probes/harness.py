"""A task of EleutherAI's lm-evaluation-harness as a probe: each item is a question, its score the task's first metric.

The harness makes the prompts and scores the answers; the log-likelihoods are computed here, in the sweep's own batch.
"""

from collections.abc import Callable, Sequence
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

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""The token ids of a context, and those of its continuation; none is empty."""


@dataclass(frozen=True)
class Item:
    """One item of a task: what the model is asked, and how its answers become a score.

    pairs  contexts and continuations, in the harness's order
    mark   (log-likelihood, whether greedy decoding writes it) of each -> the score
    """

    pairs: tuple[Pair, ...]
    mark: Callable[[list[tuple[float, bool]]], float]


@dataclass(frozen=True)
class Task:
    """A task: name of the probe, its items, and whether a lower score is better."""

    name: str
    items: Sequence[Item]
    lower: bool = False
    held_out_of: str = ""

    @property
    def facts(self) -> Facts:
        """A question is an item."""
        pairs = [item.pairs for item in self.items]
        return Facts(self.name, digest("lm_eval", self.name, pairs), len(self.items), self.lower, 1, self.held_out_of)

    def calls(self, first: int, stop: int, unrouted: Unrouted) -> list[Call]:
        """A sequence for each context with a continuation."""
        calls = []
        for context, continuation in (pair for item in self.items[first:stop] for pair in item.pairs):
            fed = (*context, *continuation)[:-1]
            calls.append(Call(fed, partial(likelihood, np.array(continuation)), len(context) - 1))
        return calls

    def answers(self, first: int, stop: int, taken: Sequence[F]) -> list[Answer]:
        """The harness's score of each item."""
        found, at = [], 0
        for item in self.items[first:stop]:
            mine = [(float(value), bool(greedy)) for value, greedy in taken[at : at + len(item.pairs)]]
            found.append(Answer(float(item.mark(mine))))
            at += len(item.pairs)
        return found


def likelihood(targets: Ints, logits: F) -> F:
    """The log-likelihood of a continuation [T] under logits [T, V], in nats, and 1 if each token is the likeliest: float64 [2]."""
    greedy = bool((logits.argmax(axis=1) == targets).all())
    return np.array([log_likelihoods(logits, targets).sum(), greedy])


def task_probe(name: str, task: str, tokenizer: Tokenizer, held_out_of: str = "") -> Task:
    """The probe of a task: its name in the harness, or a YAML file of one's own.

    SweepError without lm-eval, for a task that is not there, and for one whose answers are written texts or whole documents.
    """
    made = harness_task(task)
    made.build_all_requests(rank=0, world_size=1)
    by_item: dict[int, list[Any]] = {}
    for one in made.instances:
        if one.request_type != "loglikelihood":
            raise SweepError(f"--probe lm_eval:{task}: asks for {one.request_type}; a sweep reads log-likelihoods of choices only")
        by_item.setdefault(one.doc_id, []).append(one)
    metric, lower = first_metric(made)
    items = []
    for asked in by_item.values():
        ordered = sorted(asked, key=lambda one: one.idx)
        pairs = tuple(encoded(tokenizer, *one.args) for one in ordered)
        items.append(Item(pairs, partial(scored, made, ordered[0].doc, metric)))
    if not items:
        raise SweepError(f"--probe lm_eval:{task}: has no items; name another task")
    return Task(name, items, lower, held_out_of)


def harness_task(words: str) -> Any:
    """The harness's own object of a task. SweepError if there is none."""
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError:
        raise SweepError("--probe lm_eval needs lm-eval: pip install 'refmodel[lm-eval]'") from None
    path = Path(words)
    own = path.suffix in (".yaml", ".yml")
    if own and not path.is_file():
        raise SweepError(f"--probe lm_eval:{words}: no such file; give a task's name, or its YAML file")
    manager = TaskManager(include_path=str(path.parent), include_defaults=False) if own else TaskManager()
    name = path.stem if own else words
    if name not in manager.all_tasks:
        raise SweepError(f"--probe lm_eval:{words}: the harness has no task {name}; a file's name must be its task's")
    found = get_task_dict([name], manager)[name]
    if isinstance(found, dict):
        raise SweepError(f"--probe lm_eval:{words}: is a group of tasks; name one of them")
    return found


def first_metric(task: Any) -> tuple[str, bool]:
    """The metric of a task that is listed first, and whether a lower one is better."""
    name = next(iter(task.aggregation()))
    return name, not task.higher_is_better().get(name, True)


def scored(task: Any, item: Any, metric: str, answers: list[tuple[float, bool]]) -> float:
    """What the harness makes of the answers to an item."""
    return float(task.process_results(item, answers)[metric])


def encoded(tokenizer: Tokenizer, context: str, continuation: str) -> Pair:
    """The ids of both parts, as the harness cuts them: together they are the whole text's; spaces between go with the second."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = tokenizer.encode(context + continuation, add_special=True, parse_special=True)
    head = tokenizer.encode(context, add_special=True, parse_special=True)
    begin = [] if head else [tokenizer.bos if tokenizer.bos is not None else tokenizer.eos or 0]
    return tuple(begin + whole[: len(head)]), tuple(whole[len(head) :])
