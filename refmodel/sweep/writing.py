"""Many answers at once: every (route, question) is a sequence of one batch; routes whose answers end make room for the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import F
from ..model.batch import Batch
from ..model.route import Route
from ..model.tree import Reading, read_routes
from ..text.reply import repeated
from ..tokenizer import Tokenizer
from .probes.written import Prompt, Reply

AT_ONCE = 64  # sequences that are computed together: more gain little speed
LOOK = 16  # tokens between two looks at whether an answer is made of words
LOOP = 24  # tokens of a repeated phrase, four times or more, from which an answer counts as a loop


@dataclass
class Answering:
    """One answer as it is written.

    route, place  which route, which prompt
    most          tokens of it
    tokens        those that were written
    """

    route: int
    place: int
    most: int
    tokens: list[int] = field(default_factory=list)


def answers(
    batch: Batch, tokenizer: Tokenizer, prompts: Sequence[Prompt], routes: Sequence[Route], raw: bool, memory: int | None
) -> Iterator[tuple[int, int, Reply]]:
    """Yield (number of the route, place of the prompt, its greedy answer) as they end.

    raw     the model has no chat template: an answer is one line, because such a model goes on with another question
    memory  as read_routes has it
    """
    active = dict[int, Answering]()
    readings = read_routes(batch, [prompt.tokens for prompt in prompts], routes, memory=memory, keep=True)
    found = dict[int, int]()  # handle -> the token that was just chosen
    while True:
        while len(active) < AT_ONCE and (reading := next(readings, None)):
            found |= begun(reading, prompts, active)
        if not active:
            return
        for handle, token in found.items():
            one = active[handle]
            if (reply := ended(one, token, tokenizer, raw)) is not None:
                batch.drop(handle)
                del active[handle]
                yield one.route, one.place, reply
        step = batch.likeliest({handle: [one.tokens[-1]] for handle, one in active.items()}) if active else {}
        found = {handle: int(ids[0]) for handle, (ids, _) in step.items()}


def begun(reading: Reading, prompts: Sequence[Prompt], active: dict[int, Answering]) -> dict[int, int]:
    """Add the answers to all prompts under one route; returns the first token of each, by its handle."""
    for place, handle in enumerate(reading.handles):
        active[handle] = Answering(reading.number, place, prompts[place].most)
    return {handle: greedy(reading.logits(place, slice(-1, None))[0]) for place, handle in enumerate(reading.handles)}


def greedy(logits: F) -> int:
    """The likeliest token of logits [V], the smallest of equals; NaN is less than any number."""
    return int(np.argmax(np.where(np.isnan(logits), -np.inf, logits)))


def ended(one: Answering, token: int, tokenizer: Tokenizer, raw: bool) -> Reply | None:
    """Add a token to an answer. Returns the reply if that ends it: by its own end, its length, a line's end, or a loop."""
    over = token in tokenizer.eog
    if not over:
        one.tokens.append(token)
    loop = bool(repeated(one.tokens, least=LOOP))
    over = over or loop or len(one.tokens) == one.most
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
