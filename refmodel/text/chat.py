"""A conversation in the words of the file's own chat template.

The template (tokenizer.chat_template, Jinja) is untrusted: it runs in a child process (chat_child.py) under limits of time,
memory and output, and whatever it does ends in text or in one line that says what went wrong.
"""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..forward.numerics import Numerics
from ..model.model import Model, RouteLike
from ..model.session import Session
from ..tokenizer import Tokenizer
from ..tokenizer.vocab import special_id
from .generate import generate, room
from .reply import Reply
from .sampling import GREEDY, Sampling
from .templates import ChatError

OTHER = "name another with --chat-template"
OPEN, CLOSE = "<think>", "</think>"
WRITTEN_OUT = ("{'type': 'text'", '{"type": "text"')  # a list that a template wrote as it is
PROBE = "a message that no template knows, 5f0c9e"
SWITCH = re.compile(r"\s*(?<!\S)/(no_)?think(?!\S)")


@dataclass(frozen=True)
class TemplateLimits:
    """What a template may use: seconds of processor time, bytes of memory, characters of text."""

    seconds: int = 5
    memory: int = 512 << 20
    characters: int = 4 << 20


LIMITS = TemplateLimits()
PATIENCE = 20  # seconds by the clock for one of the processor: a busy machine is no fault of the template


def render(template: str, values: Mapping[str, Any], limits: TemplateLimits = LIMITS) -> str:
    """The text that a template makes of values (JSON data only). It runs in a child process.

    ChatError for a template that fails or exceeds a limit, and without jinja2.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise ChatError("a chat needs jinja2: pip install 'refmodel[chat]'")
    request = json.dumps({"template": template, "values": dict(values)} | vars(limits))
    command = [sys.executable, "-P", "-m", "refmodel.text.template_child"]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=PATIENCE * limits.seconds)
    except subprocess.TimeoutExpired:
        raise ChatError(f"the chat template takes more than {PATIENCE * limits.seconds} seconds; {OTHER}") from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ChatError(f"the chat template takes more than {limits.seconds} seconds of the processor; {OTHER}")
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise ChatError(f"the chat template broke its process (exit status {done.returncode}); {OTHER}") from None
    if "error" in said:
        raise ChatError(f"the chat template {said['error'].rstrip('.')}; {OTHER}")
    return str(said["text"])


@dataclass
class Conversation:
    """The messages so far, and what the template makes of them.

    tokenizer  the model's
    template   Jinja
    system     the system prompt; empty: none
    thinking   True or False is passed to the template as enable_thinking; None leaves it to the template
    kwargs     further values that the template may use
    typed      whether a message's content is a list with one text, as templates of models with an image part may want it
    """

    tokenizer: Tokenizer
    template: str
    system: str = ""
    thinking: bool | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    typed: bool = False

    def ask(self, text: str) -> str:
        """Add the user's message. Returns the whole conversation as the model reads it, up to its answer. ChatError as in `render`.

        `/no_think` and `/think` as separate words turn thinking off and on from here on. They are removed from the message if the
        template knows enable_thinking; otherwise they stay, since the model may know them.
        """
        if self.system and not self.messages:
            self.messages.append({"role": "system", "content": self.system})
        if switches := SWITCH.findall(text):
            self.thinking = not switches[-1]
            if "enable_thinking" in self.template:
                text = SWITCH.sub("", text).strip()
        self.messages.append({"role": "user", "content": text})
        return self.rendered(self.messages) if self.typed else self.as_text_or_typed()

    def as_text_or_typed(self) -> str:
        """What the template makes of the messages: of texts, or of lists with one text, if only then the last message is in it.

        ChatError as in `render`. Source: common_chat_template of llama.cpp, which also tells the two kinds of templates by trying.
        """
        try:
            plain, failed = self.rendered(self.messages), None
        except ChatError as error:
            plain, failed = "", error
        if failed or self.lacks(plain):
            self.typed = True
            try:
                typed = self.rendered(self.messages)
                if not (self.lacks(typed) or any(word in typed for word in WRITTEN_OUT)):
                    return typed
            except ChatError:
                pass  # it wants texts, and what it made of them is said
            self.typed = False
        if failed:
            raise failed
        return plain

    def lacks(self, prompt: str) -> bool:
        """Whether the last message is not in a prompt. White space does not count."""
        return "".join(self.messages[-1]["content"].split()) not in "".join(prompt.split())

    def rendered(self, messages: list[dict[str, str]]) -> str:
        """What the template makes of these messages, up to the answer. ChatError as in `render`."""
        chosen = {} if self.thinking is None else {"enable_thinking": self.thinking}
        said = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages] if self.typed else messages
        values = {"messages": said, "tools": None, "documents": None, "add_generation_prompt": True}
        return render(self.template, values | special_texts(self.tokenizer) | dict(self.kwargs) | chosen)

    def leaves_out(self, prompt: str) -> bool:
        """Whether the prompt that `ask` returned lacks the user's last message, for whatever reason. White space does not count.

        A short message, or one that came before, may be found by chance: then the template is rendered once more with another
        message in its place.
        """
        message, earlier = self.messages[-1]["content"], [said["content"] for said in self.messages[:-1]]
        if self.lacks(prompt):
            return True
        if len(message) > len(PROBE) and not any(message in said for said in earlier):
            return False
        try:
            other = self.rendered([*self.messages[:-1], {"role": "user", "content": PROBE}])
        except ChatError:  # it takes this message and not that one
            return False
        return PROBE not in other and other == prompt

    def answered(self, text: str) -> None:
        """Add the model's reply."""
        self.messages.append({"role": "assistant", "content": text})

    def ids(self, prompt: str) -> list[int]:
        """The token ids of a prompt. Special tokens in it are read as such, and it has one begin token if the file asks for one."""
        tokenizer, begin = self.tokenizer, list[int]()
        if tokenizer.add_bos and tokenizer.bos is not None and not prompt.startswith(tokenizer.vocab.texts[tokenizer.bos]):
            begin = [tokenizer.bos]
        return begin + tokenizer.encode(prompt, add_special=False, parse_special=True)


def special_texts(tokenizer: Tokenizer) -> dict[str, str]:
    """The texts of the special tokens that templates use: bos_token, eos_token, unk_token, pad_token."""
    names = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    names |= {
        name: special_id(tokenizer.md, key, None, tokenizer.n_vocab) for name, key in (("unk", "unknown"), ("pad", "padding"))
    }
    return {f"{name}_token": tokenizer.vocab.texts[token] for name, token in names.items() if token is not None}


@dataclass
class Dialogue:
    """A conversation with a model, turn by turn, under one route and numerics.

    A turn feeds only what is new, as long as the template keeps the earlier tokens. If the template rewrites them (many drop
    earlier thinking), the session starts over.
    """

    model: Model
    route: RouteLike
    numerics: Numerics
    conversation: Conversation
    how: Sampling = GREEDY
    count: int = 1024  # most tokens of a reply
    ctx: int = 0  # most tokens of all turns; 0 is as many as memory allows
    stops: Sequence[str] = ()
    budget: int | None = None  # most tokens of thinking
    fed: list[int] = field(default_factory=list)  # what the session has seen
    session: Session | None = None

    def turn(self, text: str) -> "Turn":
        """Say something. Returns the reply to read; call `done` after reading it.

        TokenError if there is no room for a reply; ChatError as in `render`.
        """
        prompt = self.conversation.ask(text)
        ids = self.conversation.ids(prompt)
        lost = self.conversation.leaves_out(prompt)
        budget = None if self.budget is None else ThinkingBudget(self.model.tokenizer, self.budget, prompt)
        ids += budget.first() if budget else ()
        if not ids:
            raise ChatError(f"the chat template makes an empty prompt of your message; {OTHER}")
        count = room(self.ctx, len(ids), self.count)
        if self.session is None or len(self.fed) >= len(ids) or self.fed != ids[: len(self.fed)]:
            self.session, self.fed = self.model.session(self.route, self.numerics), []
        self.session.reserve(self.ctx or len(ids) + count)
        past, new = self.fed, ids[len(self.fed) :]
        self.fed = ids
        steer = budget or (lambda token: ())
        tokens = generate(self.session, new, count, self.how, steer, past)
        return Turn(Reply(self.model.tokenizer, self.stops), len(new), tokens, lost)

    def done(self, reply: Reply) -> None:
        """Add the reply to the conversation. Its last token was never fed to the model."""
        self.fed = self.fed + reply.tokens[:-1]
        self.conversation.answered(reply.text)


@dataclass(frozen=True)
class Turn:
    """The reply to come.

    read    how many tokens are read before it
    tokens  its own, as they come
    lost    whether the template left the user's message out
    """

    reply: Reply
    read: int
    tokens: Iterator[int]
    lost: bool


class ThinkingBudget:
    """Ends the thinking of a reply after a number of tokens, by writing the closing tag in the model's place."""

    def __init__(self, tokenizer: Tokenizer, most: int, prompt: str) -> None:
        """`prompt`: the text before the reply; a template may have opened the thinking itself."""
        self.most, self.count, self.stream, self.tail = most, 0, tokenizer.stream(), ""
        self.thinking = prompt.rstrip().endswith(OPEN)
        self.closing = tokenizer.encode(f"\n{CLOSE}\n\n", add_special=False, parse_special=True)

    def first(self) -> Sequence[int]:
        """The tokens to write first: the closing tag, if the template opened the thinking and no token of it is allowed."""
        if not self.thinking or self.most > 0:
            return ()
        self.thinking = False
        return self.closing

    def __call__(self, token: int) -> Sequence[int]:
        """Hear of a token that was written; returns those that must follow it. A character is never cut in two."""
        self.tail += self.stream.feed(token)
        opened, closed = self.tail.rfind(OPEN), self.tail.rfind(CLOSE)
        if opened == closed:  # no tag
            self.count, self.tail = self.count + self.thinking, self.tail[1 - len(CLOSE) :]
        else:
            self.thinking, self.count, self.tail = opened > closed, 0, self.tail[max(opened, closed) + len(OPEN) :]
        if not self.thinking or self.count < self.most or self.stream.waiting:
            return ()
        self.thinking = False
        return self.closing
