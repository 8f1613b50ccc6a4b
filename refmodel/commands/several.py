"""Several prompts of one `refmodel run`: they are written in one batch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import TokenError
from ..machine.files import text_of
from ..machine.memory import Peak
from ..report.console import err, out
from ..report.progress import counting
from .compiling import prepare
from .options import file_of, token_ids

if TYPE_CHECKING:
    from ..forward.numerics import Numerics
    from ..model.model import Model
    from ..model.route import Route
    from ..text.sampling import Sampling
    from ..text.together import Task

Prompts = Annotated[
    list[str] | None, typer.Option("-p", "--prompt", help="The text to run; given several times, all are written in one batch.")
]
PromptFile = Annotated[
    Path | None, typer.Option("--file", help="Prompts from a text file, one a line; all are written in one batch.", metavar="FILE")
]


def prompts_of(prompts: Sequence[str] | None, file: Path | None) -> list[str]:
    """The prompts of -p, then those of the file: its lines that are not blank.

    FileError if it cannot be read or is not UTF-8; TokenError if it has no prompt.
    """
    if file is None:
        return list(prompts or ())
    path = file_of(str(file))
    lines = [line for line in text_of(path).splitlines() if line.strip()]
    if not lines:
        raise TokenError(f"{path}: has no prompt; write one a line")
    return [*(prompts or ()), *lines]


def write_several(
    model: "Model",
    policy: "Numerics",
    route: "Route",
    prompts: Sequence[str],
    special: bool,
    how: "Sampling",
    n: int,
    ctx: int,
    stops: Sequence[str],
    as_json: bool,
) -> None:
    """Write a reply of at most n tokens to each prompt, and print them in the order of the prompts.

    Arguments as the options say them. MemoryLimitError and other errors of a batch before anything is printed.
    """
    from ..text.generate import room
    from ..text.reply import Reply
    from ..text.together import Task, write_together

    read = [token_ids(model, prompt, "", special) for prompt in prompts]
    tasks = [Task(ids, room(ctx, len(ids), n), Reply(model.tokenizer, stops)) for ids in read]
    batch = model.batch(policy)
    prepare(model, policy, read)
    start = time.perf_counter()
    with Peak() as memory, counting(err, "writing replies", len(tasks)) as seen:
        for number in write_together(batch, tasks, route, how):
            seen(f"reply {number + 1}")
    seconds = time.perf_counter() - start
    if as_json:
        replies = [
            {"prompt": prompt, "text": task.reply.text, "tokens": task.reply.tokens, "end": task.reply.end}
            for prompt, task in zip(prompts, tasks, strict=True)
        ]
        figures = {"replies": replies, "numerics": policy.name, "seconds": seconds, "peak_anonymous_bytes": memory.bytes}
        out.json(figures)
        return
    for number, (prompt, task) in enumerate(zip(prompts, tasks, strict=True), 1):
        out.say(f"{number}. {prompt}\n{task.reply.text}\n\n")
    say(tasks, policy.name, seconds)


def say(tasks: "Sequence[Task]", numerics: str, seconds: float) -> None:
    """Print how much was read and written in so many seconds."""
    read, written = sum(len(task.prompt) for task in tasks), sum(len(task.reply.tokens) for task in tasks)
    speed = f"{written / seconds:.1f} tokens/s"
    err.print(f"{len(tasks)} prompts, {read} tokens read; {written} written, {speed} in all ({numerics})", style="dim")
