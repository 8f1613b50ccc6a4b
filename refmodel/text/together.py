"""Several texts written at once, in one batch: prompts are read while other replies are written, and who ends makes room."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..model.batch import Batch
from ..model.route import Route
from .generate import UBATCH
from .reply import Reply
from .sampling import GREEDY, Sampling, choose

AT_ONCE = 32  # sequences: enough that a matrix is read once for many tokens


@dataclass
class Task:
    """One text to be written.

    prompt  token ids
    count   the most tokens of the reply
    reply   reads the tokens
    """

    prompt: Sequence[int]
    count: int
    reply: Reply


@dataclass
class Writer:
    """A task that is in the batch.

    number  of the task
    draw    its own random numbers
    before  the tokens so far, for penalties
    due     the tokens to be fed next
    """

    number: int
    task: Task
    draw: np.random.Generator
    before: list[int] = field(default_factory=list)
    due: Sequence[int] = ()


def write_together(
    batch: Batch, tasks: Sequence[Task], route: Route | None = None, how: Sampling = GREEDY, at_once: int = AT_ONCE
) -> Iterator[int]:
    """Write all texts; yields the number of each task when its reply has ended.

    route    of all of them
    how      how the next token is chosen; each text draws from its own PCG64(seed)
    at_once  sequences that are in the batch at a time; the next one joins when one has ended

    A text does not depend on the others, nor on `at_once`. MemoryLimitError if keys and values of those in the batch do not fit.
    """
    waiting, here = deque(enumerate(tasks)), dict[int, Writer]()
    deciding = how.deciding(batch.n_vocab)
    while waiting or here:
        while waiting and len(here) < at_once:
            number, task = waiting.popleft()
            handle = batch.add(route)
            batch.reserve({handle: len(task.prompt) + task.count})
            draw = np.random.Generator(np.random.PCG64(how.seed))
            here[handle] = Writer(number, task, draw, list(task.prompt), task.prompt)
        calls = {handle: writer.due[:UBATCH] for handle, writer in here.items()}
        for handle, (ids, logits) in batch.likeliest(calls, deciding).items():
            writer = here[handle]
            writer.due = writer.due[len(calls[handle]) :]
            if not writer.due:
                token = choose(ids, logits, writer.before, how, writer.draw.random())
                if ended(writer, token):
                    batch.drop(handle)
                    del here[handle]
                    yield writer.number


def ended(writer: Writer, token: int) -> bool:
    """Give a writer its next token; whether its reply ends with it."""
    reply = writer.task.reply
    reply.take(token)
    writer.before.append(token)
    writer.due = [token]
    if reply.end == "count" and len(reply.tokens) == writer.task.count:
        reply.rest()
        return True
    return reply.end != "count"
