"""OpenAI's words: /v1/models, /v1/completions, /v1/chat/completions."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from ..text.likelihoods import Score
from ..text.sampling import Sampling
from .asked import Json, kept, reason, shown_scores, token_text, usage
from .fields import MOST_TOP, Fields
from .served import Served
from .wishes import Ended, Event, Piece, Read, Refusal, Written

DEFAULT = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)  # what OpenAI documents: the model's own distribution
Texts = Mapping[tuple[int, int], Written]


def models(served: Served) -> Json:
    """The one model."""
    one = {"id": served.name, "object": "model", "created": served.started, "owned_by": "refmodel"}
    return {"object": "list", "data": [one | {"meta": {"n_vocab": served.model.n_vocab, "n_layer": served.model.n_layer}}]}


class Completions:
    """A request to /v1/completions."""

    object, prefix = "text_completion", "cmpl-"

    def __init__(self, served: Served, body: Any) -> None:
        self.served, self.fields = served, Fields(body)
        self.tokenizer = served.model.tokenizer
        self.stream, self.n = self.fields.flag("stream"), self.fields.whole("n", 1, 1, served.limits.parallel)
        self.counted = bool(self.fields.options("stream_options").get("include_usage"))
        self.id, self.created = f"{self.prefix}{secrets.token_hex(12)}", int(time.time())
        self.read()
        self.name = served.called(self.wishes[0].route)
        if sum(len(wish.how) for wish in self.wishes) > served.limits.parallel:
            raise Refusal(f"the request asks for more than {served.limits.parallel} texts; ask for fewer at once", param="n")

    def read(self) -> None:
        """Read what is not common to both kinds of request."""
        fields, prompt = self.fields, self.fields.body.get("prompt")
        self.echo, self.top = fields.flag("echo"), None
        if "logprobs" in fields.body and fields.body["logprobs"] is not False:
            self.top = fields.whole("logprobs", 0, 0, MOST_TOP)
        if fields.whole("best_of", self.n, 1) != self.n:
            raise Refusal("best_of is not supported by this server; leave it out", param="best_of")
        prompts = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
        self.prompts = [self.served.ids(one) for one in prompts]
        count = fields.whole("max_tokens", 16, 0 if self.echo else 1)
        wishes = [self.served.wish(fields, ids, count, DEFAULT, self.n) for ids in self.prompts]
        self.wishes = [replace(wish, top=self.top, echo=self.echo) for wish in wishes]

    def head(self, choices: Sequence[Json]) -> Json:
        """What every answer and every piece of it begins with."""
        return {"id": self.id, "object": self.object, "created": self.created, "model": self.name, "choices": list(choices)}

    def whole(self, reads: Mapping[int, Read], texts: Texts) -> Json:
        """The answer in one piece."""
        choices = [self.choice(number, index, reads[number], text) for (number, index), text in sorted(texts.items())]
        return self.head(choices) | {"usage": usage(self.wishes, texts)}

    def choice(self, number: int, index: int, read: Read, text: Written) -> Json:
        """One complete text."""
        scores = [*(read.scores if self.echo else ()), *kept(text.pieces, self.tokenizer)]
        echoed = self.echoed(number) if self.echo else ""
        shown = self.logprobs(scores, self.prompts[number][0] if self.echo else None)
        return self.part(number, index, echoed + text.text, shown) | {"finish_reason": reason(text.ended)}

    def echoed(self, number: int) -> str:
        """The text of a prompt."""
        return "".join(token_text(self.tokenizer, token) for token in self.prompts[number])

    def part(self, number: int, index: int, text: str, logprobs: Json | None) -> Json:
        """A piece of one text."""
        return {"index": number * self.n + index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def logprobs(self, scores: Sequence[Score], first: int | None = None) -> Json | None:
        """The log-probabilities of some tokens, after those of a `first` one, which nothing came before."""
        if self.top is None:
            return None
        ids = ([] if first is None else [first]) + [score.token for score in scores]
        tokens = [token_text(self.tokenizer, token) for token in ids]
        starts = list(accumulate(map(len, tokens[:-1]), initial=0))[: len(tokens)]
        top: list[Json | None] = [{token_text(self.tokenizer, token): logprob for token, logprob in score.top} for score in scores]
        values: list[float | None] = [score.logprob for score in scores]
        if first is not None:
            top, values = [None, *top], [None, *values]
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": starts}

    def pieces(self, number: int, event: Event) -> list[Json]:
        """What a stream tells of an event."""
        match event:
            case Read() if self.echo:
                logprobs = self.logprobs(event.scores, self.prompts[number][0])
                return [self.head([self.part(number, i, self.echoed(number), logprobs)]) for i in range(self.n)]
            case Piece() if event.text or event.score:
                scores = kept([event], self.tokenizer)
                return [self.head([self.part(number, event.index, event.text, self.logprobs(scores) if scores else None)])]
            case Ended():
                part = self.part(number, event.index, event.rest, None)
                return [self.head([part | {"finish_reason": reason(event)}])]
        return []

    def last(self, texts: Texts) -> list[Json | str]:
        """What a stream ends with."""
        counts: list[Json | str] = [self.head([]) | {"usage": usage(self.wishes, texts)}] if self.counted else []
        return [*counts, "[DONE]"]


class Chat(Completions):
    """A request to /v1/chat/completions."""

    object, prefix = "chat.completion", "chatcmpl-"

    def read(self) -> None:
        """Read the messages."""
        fields = self.fields
        self.echo, self.top = False, None
        if fields.flag("logprobs"):
            self.top = fields.whole("top_logprobs", 0, 0, MOST_TOP)
        _, ids = self.served.prompt_of(fields)
        count = fields.whole("max_completion_tokens", fields.whole("max_tokens", -1, -1), -1)
        self.prompts = [ids]
        self.wishes = [replace(self.served.wish(fields, ids, count or -1, DEFAULT, self.n), top=self.top)]

    def head(self, choices: Sequence[Json]) -> Json:
        """As for completions; pieces have another name."""
        return super().head(choices) | ({"object": "chat.completion.chunk"} if self.stream else {})

    def choice(self, number: int, index: int, read: Read, text: Written) -> Json:
        """One complete message."""
        message = {"role": "assistant", "content": text.text}
        shown = self.contents(kept(text.pieces, self.tokenizer))
        return {"index": index, "message": message, "logprobs": shown, "finish_reason": reason(text.ended)}

    def contents(self, scores: Sequence[Score]) -> Json | None:
        """Log-probabilities as chats have them."""
        return None if self.top is None else {"content": [shown_scores(self.tokenizer, score) for score in scores]}

    def pieces(self, number: int, event: Event) -> list[Json]:
        """What a stream tells of an event: who speaks, then the pieces of the text."""
        match event:
            case Read():
                return [self.delta(index, {"role": "assistant", "content": ""}) for index in range(self.n)]
            case Piece() if event.text or event.score:
                return [self.delta(event.index, {"content": event.text}, kept([event], self.tokenizer))]
            case Ended():
                rest = {"content": event.rest} if event.rest else {}
                return [self.delta(event.index, rest, finish_reason=reason(event))]
        return []

    def delta(self, index: int, delta: Json, scores: Sequence[Score] = (), finish_reason: str | None = None) -> Json:
        """A piece of one message."""
        shown = self.contents(scores) if scores else None
        return self.head([{"index": index, "delta": delta, "logprobs": shown, "finish_reason": finish_reason}])
