"""The model as the dialects see it: its name, its routes, prompts as token ids."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..model.model import Model
from ..model.route import Route
from ..text.chat import Conversation
from ..text.sampling import Sampling
from .fields import Fields
from .limits import Limits
from .wishes import Refusal, Wish


@dataclass(frozen=True)
class Served:
    """A model with what every request needs.

    name      what clients call it
    model     loaded
    template  of chats, in Jinja
    limits    of a request
    started   seconds since 1970
    """

    name: str
    model: Model
    template: str
    limits: Limits
    started: int = field(default_factory=lambda: int(time.time()))

    def route(self, fields: Fields) -> Route:
        """The route that a request names, in `route` or after an @ in `model`. Refusal if both do, RouteError as for a Route.

        Any name of a model is taken for this one, as llama-server does.
        """
        named = fields.text("model", self.name)
        _, at, words = ("", "", "") if named == self.name else named.rpartition("@")
        given = fields.body.get("route")
        if at and given is not None:
            raise Refusal("two routes: one in model, one in route; leave one out", param="route")
        if given is not None and not isinstance(given, str | list):
            raise fields.wrong("route", "a text such as blocks:15,20, or a list of blocks")
        return Route.of(words if at else given, self.model.n_layer)

    def called(self, route: Route) -> str:
        """What an answer calls the model under a route."""
        return self.name if route.is_identity else f"{self.name}@{route.canonical}"

    def ids(self, prompt: Any, param: str = "prompt") -> list[int]:
        """The token ids of a prompt: a text, in which special tokens are read as such, or ids. TokenError, Refusal."""
        if isinstance(prompt, str):
            return self.model.tokenizer.encode(prompt, add_special=True, parse_special=True)
        if isinstance(prompt, list) and prompt and all(type(one) is int and 0 <= one < self.model.n_vocab for one in prompt):
            return prompt
        raise Refusal(f"{param} is no prompt; expected a text, or token ids from 0 to {self.model.n_vocab - 1}", param=param)

    def wish(self, fields: Fields, ids: Sequence[int], count: int, default: Sampling, n: int = 1) -> Wish:
        """What the common fields of a request ask for.

        count    most tokens of a text, bounded by the room that the prompt leaves; -1 is all of it
        default  how tokens are chosen without a word about it
        n        texts of the prompt; their seeds follow each other

        Refusal for a prompt that leaves no room.
        """
        most, used = self.limits.tokens, len(ids)
        if not used:
            raise Refusal("the prompt has no tokens; expected at least one", param="prompt")
        if used + (count != 0) > most:
            why = f"the prompt has {used:,} tokens; this server gives a request {most:,}, those of its answer included"
            raise Refusal(f"{why}; shorten it", param="prompt", code="context_length_exceeded")
        how = fields.sampling(default, self.model.n_vocab)
        count = most - used if count < 0 else min(count, most - used)
        return Wish(self.route(fields), ids, count, [replace(how, seed=how.seed + i) for i in range(n)], fields.stops())

    def prompt_of(self, fields: Fields) -> tuple[str, list[int]]:
        """The prompt that the template makes of `messages`: its text and its ids. ChatError, Refusal."""
        messages = fields.body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise fields.wrong("messages", "a list of messages, each with role and content")
        plain = [plain_message(message, number) for number, message in enumerate(messages)]
        kwargs = fields.body.get("chat_template_kwargs", {})
        if not isinstance(kwargs, dict) or {"messages", "add_generation_prompt"} & kwargs.keys():
            raise fields.wrong("chat_template_kwargs", "an object with values that the template may name")
        asks = plain[-1]["role"] == "user"
        chat = Conversation(self.model.tokenizer, self.template, messages=plain[:-1] if asks else plain, kwargs=kwargs)
        prompt = chat.ask(plain[-1]["content"]) if asks else chat.rendered(chat.messages)
        return prompt, chat.ids(prompt)


def plain_message(message: Any, number: int) -> dict[str, str]:
    """A message with its content as one text. Refusal for one with pictures, or without role or content."""
    name = f"messages[{number}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refusal(f"{name} has no role; expected an object with role and content", param="messages")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refusal(f"{name}.content is no text; expected a text, or a list of parts of type text", param="messages")
    return {key: value for key, value in message.items() if isinstance(value, str)} | {"content": content}
