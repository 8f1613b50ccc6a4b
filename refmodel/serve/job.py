"""A request while it is computed: the prompt that is read, and the texts that are written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ..arrays import F
from ..forward.weights import Weight
from ..model.batch import some_columns
from ..model.likeliest import likeliest
from ..text.generate import Chooser
from ..text.likelihoods import Score, score_of
from ..text.reply import Reply
from ..tokenizer import Tokenizer
from .wishes import Ended, Event, Piece, Read, Wish


@dataclass(eq=False)
class Job:
    """A wish on its way.

    wish      what is asked for
    deadline  time.monotonic() at which it is ended
    at_once   whether events are told as they come; else all together when it is complete
    gone      whether nobody waits for it any more; another thread may set it
    handle    of the sequence that reads the prompt, in the batch
    fed       tokens of the prompt that were fed
    scores    of the prompt so far
    texts     that are being written
    out       events that were not delivered yet
    """

    wish: Wish
    deadline: float
    at_once: bool = True
    gone: bool = False
    handle: int = 0
    fed: int = 0
    scores: list[Score] = field(default_factory=list)
    texts: list["Text"] = field(default_factory=list)
    out: list[Event] = field(default_factory=list)

    @property
    def reading(self) -> bool:
        """Whether some of its prompt is still to be fed."""
        return self.fed < len(self.wish.prompt)

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.deadline

    def next_part(self, most: int) -> Sequence[int]:
        """The next tokens of the prompt, at most `most`."""
        return self.wish.prompt[self.fed : self.fed + most]

    def read(self, tokens: int, rows: F | None) -> None:
        """The next tokens of the prompt were fed.

        rows  their logits [tokens, V] if the prompt is scored, else None
        """
        if rows is not None:
            for row, target in zip(rows, self.wish.prompt[self.fed + 1 : self.fed + 1 + tokens]):
                self.scores.append(score_of(row, target, self.wish.top or 0))
        self.fed += tokens
        if not self.reading:
            self.out.append(Read(time.monotonic(), self.scores))

    @property
    def scored(self) -> bool:
        """Whether the tokens of the prompt are scored."""
        return self.wish.echo and self.wish.top is not None


class Text:
    """One text that is written: its sequence in the batch, and the token that is fed next."""

    def __init__(self, index: int, handle: int, wish: Wish, tokenizer: Tokenizer) -> None:
        self.index, self.handle, self.wish = index, handle, wish
        self.chooser = Chooser(wish.how[index], wish.prompt)
        self.reply, self.next = Reply(tokenizer, wish.stops), 0
        self.complete = False

    def write(self, row: F, output: Weight) -> list[Event]:
        """Choose the next token from logits [1, V]. Returns what is to be told. RefmodelError for logits that are not numbers."""
        how = self.wish.how[self.index]
        self.next = self.chooser.choose(*likeliest(partial(some_columns, row), output, how.deciding(row.shape[1]))[0])
        self.chooser.before.append(self.next)
        text = self.reply.take(self.next)
        score = None if self.wish.top is None else score_of(row[0], self.next, self.wish.top)
        told: list[Event] = [Piece(self.index, self.next, text, score)]
        self.complete = self.reply.end != "count" or len(self.reply.tokens) >= self.wish.count
        if self.complete:
            rest = self.reply.rest() if self.reply.end == "count" else ""
            told.append(Ended(self.index, self.reply.end, rest, self.reply.stops.found))
        return told
