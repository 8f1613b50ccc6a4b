"""Many answers at once: every (route, question) is a sequence of one batch; one that ends makes room for the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..machine.memory import available
from ..model.batch import Batch
from ..model.route import Route
from ..text.reply import repeated
from ..tokenizer import Tokenizer
from .probes.written import Prompt, Reply

AT_ONCE = 64  # sequences that are computed together: more gain little speed
SHARE = 0.5  # of the free memory that their states may take
LOOK = 16  # tokens between two looks at whether an answer is made of words
LOOP = 24  # tokens of a repeated phrase, four times or more, from which an answer counts as a loop


@dataclass
class Answering:
    """One answer as it is written."""

    number: int
    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    next: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One prompt under one route."""

    route: Route
    prompt: Prompt


def answers(batch: Batch, tokenizer: Tokenizer, tasks: Sequence[Task], raw: bool) -> Iterator[tuple[int, Reply]]:
    """Yield (number of the task, its greedy answer) as they end.

    raw  the model has no chat template: an answer is one line, because such a model goes on with another question
    """
    waiting, active = list(enumerate(tasks))[::-1], dict[int, Answering]()
    free = available()
    room = None if free is None else int(SHARE * free)
    taken: dict[int, int] = {}
    while waiting or active:
        while waiting and len(active) < AT_ONCE:
            number, task = waiting[-1]
            handle = batch.add(task.route)
            cost = batch.memory({handle: len(task.prompt.tokens) + task.prompt.most})
            if active and room is not None and sum(taken.values()) + cost > room:
                batch.drop(handle)
                break
            waiting.pop()
            taken[handle] = cost
            active[handle] = Answering(number, task.prompt, next=task.prompt.tokens)
        for handle, (ids, _) in batch.likeliest({handle: one.next for handle, one in active.items()}).items():
            one = active[handle]
            one.next = (int(ids[0]),)
            if (reply := ended(one, int(ids[0]), tokenizer, raw)) is not None:
                batch.drop(handle)
                del active[handle], taken[handle]
                yield one.number, reply


def ended(one: Answering, token: int, tokenizer: Tokenizer, raw: bool) -> Reply | None:
    """Add a token to an answer. Returns the reply if that ends it: by its own end, its length, a line's end, or a loop."""
    over = token in tokenizer.eog
    if not over:
        one.tokens.append(token)
    loop = bool(repeated(one.tokens, least=LOOP))
    over = over or loop or len(one.tokens) == one.prompt.most
    if not (over or raw or len(one.tokens) % LOOK == 0):
        return None
    text = tokenizer.decode(one.tokens)
    if raw and "\n" in text.lstrip():
        over, text = True, text.lstrip().partition("\n")[0]
    found = trouble(text, loop)
    return Reply(text.strip(), found) if over or (found == "garbage" and len(one.tokens) % LOOK == 0) else None


def trouble(text: str, loop: bool) -> str:
    """`mute` for nothing, `loop` for a phrase again and again, `garbage` for what is not made of words or numbers; else empty."""
    plain = "".join(text.split())
    if not plain:
        return "mute"
    if loop:
        return "loop"
    return "garbage" if sum(c.isalnum() for c in plain) < len(plain) / 2 else ""
