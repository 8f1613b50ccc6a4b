"""A model for EleutherAI's lm-evaluation-harness: `--model refmodel`, with a route.

`python -m refmodel.lm_eval ARGS` is the harness's own command with this model in it. In a program, import this module.
The harness tokenizes, windows and averages as it does for transformers' models; here the tokens are scored and written.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from .arrays import F
from .commands.options import model_of, numerics_of
from .errors import RefmodelError
from .model.batch import Batch
from .model.route import Route
from .text.chat import Conversation
from .text.likelihoods import log_softmax
from .text.reply import Reply
from .text.sampling import Sampling
from .text.templates import template_of
from .text.together import Task, write_together

AT_ONCE = 2048  # tokens of contexts that are computed together
ROWS = 64  # tokens whose logits are made together
T = TypeVar("T")
ARGUMENT = re.compile(r",(?=[A-Za-z_]+=)")
BARE_ROUTE = re.compile(r"(?<![A-Za-z_])route=([^\"'=]+?)(?=,[A-Za-z_]+=|$)")

Pair = tuple[list[int], list[int]]
"""The token ids of a context, and those of its continuation; none is empty."""


@register_model("refmodel")
class Harnessed(TemplateLM):  # type: ignore[misc] # the harness may not be there
    """A model under one route and one numerics, as the harness asks it.

    path          a GGUF, a Hugging Face folder, or austen
    route         which blocks run in which order; empty is the file's own order
    numerics      how to compute
    max_length    most tokens of a context and its continuation; 0 is what the file was trained for
    max_gen_toks  most tokens of a text, where a task does not say
    batch_size    texts that are written at once; auto is 64

    RefmodelError for a file, a route or numerics that cannot be used.
    """

    def __init__(
        self,
        path: str,
        route: Any = "",
        numerics: str = "fast",
        max_length: int = 0,
        max_gen_toks: int = 256,
        batch_size: int | str = 64,
        chat_template: str = "",
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.policy = model_of(path), numerics_of(numerics)
        self.route = self.model.route(f"({','.join(map(str, route))})" if isinstance(route, tuple) else route)
        trained = self.model.file.metadata.int(f"{self.model.architecture}.context_length", 2048)
        self.max_length, self.max_gen_toks = max_length or trained, max_gen_toks
        self.texts = batch_size if isinstance(batch_size, int) else int(batch_size) if batch_size.isdigit() else 64
        self.template = template_of(self.model.file.metadata, chat_template).text

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> "Harnessed":
        """From `path=...,route=blocks:15,20,numerics=fast`: a comma ends a value only before the next name."""
        given = dict(part.split("=", 1) for part in ARGUMENT.split(arg_string) if "=" in part)
        numbers: dict[str, Any] = {name: int(given[name]) for name in ("max_length", "max_gen_toks") if name in given}
        return cls(**given | numbers | {name: value for name, value in (additional_config or {}).items() if value is not None})

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return f"refmodel {self.model.file.sha256()}"

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text. RefmodelError for a file that names none."""
        if self.model.tokenizer.eos is None:
            raise RefmodelError(
                f"{self.model.path}: names no end token (tokenizer.ggml.eos_token_id), which the harness needs; set it"
            )
        return self.model.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        """What comes before a text without a context: the begin token, or the end token if the file names none."""
        bos, named = self.model.tokenizer.bos, "tokenizer.ggml.bos_token_id" in self.model.file.metadata
        return self.eot_token_id if bos is None or not named else bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids. Without a word about special tokens the file's begin token is added, unless the text has it."""
        tokenizer = self.model.tokenizer
        if add_special_tokens is None:
            begin = None if tokenizer.bos is None else tokenizer.vocab.texts[tokenizer.bos]
            add_special_tokens = begin is None or not string.startswith(begin)
        return tokenizer.encode(string, add_special=add_special_tokens, parse_special=True)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that `apply_chat_template` uses."""
        return self.template if chat_template is not False else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt that the file's template makes of messages. ChatError as for a chat."""
        kwargs = {} if add_generation_prompt else {"add_generation_prompt": False}
        return Conversation(self.model.tokenizer, self.template, kwargs=kwargs).rendered(chat_history)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is what greedy decoding writes."""
        pairs = [cut(context, continuation, self.max_length) for _, context, continuation in requests]
        found = scored(self.model.batch(self.policy), self.route, pairs, bool(kwargs.get("disable_tqdm")))
        for request, result in zip(requests, found):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], result)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows of `max_length` tokens."""
        windows = list[tuple[int, Any]]()
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            parts = utils.get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            windows += [(number, (None, *utils.make_disjoint_window(part))) for part in parts]
        sums = [0.0] * len(requests)
        values = self._loglikelihood_tokens([window for _, window in windows], disable_tqdm=disable_tqdm)
        for (number, _), (value, _) in zip(windows, values):
            sums[number] += value
        for request, value in zip(requests, sums):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that follows each context, up to the first of `until`."""
        tasks = [self.task(*request.args) for request in requests]
        with tqdm(total=len(tasks), desc="writing", disable=disable_tqdm) as bar:
            for how in dict.fromkeys(how for _, how in tasks):
                some = [task for task, its in tasks if its == how]
                for _ in write_together(self.model.batch(self.policy), some, self.route, how, self.texts):
                    bar.update()
        texts = [task.reply.text for task, _ in tasks]
        for request, text in zip(requests, texts):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def task(self, context: str, settings: Mapping[str, Any]) -> tuple[Task, Sampling]:
        """What a request of the harness asks to be written, and how."""
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        count = next((int(settings[name]) for name in names if settings.get(name) is not None), self.max_gen_toks)
        if not 0 < count < self.max_length:
            raise RefmodelError(f"{count} tokens to write: expected 1 to {self.max_length - 1}; set max_gen_toks or max_length")
        until = settings.get("until") or []
        greedy = not settings.get("do_sample", float(settings.get("temperature", 0)) > 0)
        how = Sampling(
            temperature=0.0 if greedy else float(settings.get("temperature", 1)),
            top_k=int(settings.get("top_k", 0)),
            top_p=float(settings.get("top_p", 1)),
            min_p=float(settings.get("min_p", 0)),
        )
        ids = self.tok_encode(context)[-(self.max_length - count) :]
        return Task(ids, count, Reply(self.model.tokenizer, [until] if isinstance(until, str) else until)), how


def cut(context: list[int], continuation: list[int], most: int) -> Pair:
    """A pair of which at most `most` tokens are fed: the first ones are left out. The last one is not fed."""
    left_out = max(0, len(context) + len(continuation) - 1 - most)
    return context[min(left_out, len(context) - 1) :], continuation


def scored(batch: Batch, route: Route, pairs: Sequence[Pair], silent: bool) -> list[tuple[float, bool]]:
    """The log-likelihood of each continuation, and whether each of its tokens is the likeliest.

    A context that several continuations share is computed once; its sequence forks.
    """
    by_context: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(pairs):
        by_context.setdefault(tuple(context), []).append(number)
    found: dict[int, tuple[float, bool]] = {}
    with tqdm(total=len(pairs), desc="scoring", disable=silent) as bar:
        for wave in groups(sorted(by_context, key=lambda one: (-len(one), one)), len, AT_ONCE):
            for number, result in of_wave(batch, route, {context: by_context[context] for context in wave}, pairs):
                found[number] = result
                bar.update()
    return [found[number] for number in range(len(pairs))]


def groups(things: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The things in groups of at most `most` together, in order; one that is larger is a group of its own."""
    group, total = list[T](), 0
    for thing in things:
        if group and total + size(thing) > most:
            yield group
            group, total = [], 0
        group.append(thing)
        total += size(thing)
    if group:
        yield group


def of_wave(
    batch: Batch, route: Route, contexts: Mapping[tuple[int, ...], list[int]], pairs: Sequence[Pair]
) -> Iterator[tuple[int, tuple[float, bool]]]:
    """(number of the pair, its result) of all pairs with these contexts, which are computed together."""
    handles = {batch.add(route): context for context in contexts}
    firsts = batch.hidden(handles, "last")
    first = {number: firsts[handle] for handle, context in handles.items() for number in contexts[context]}
    forks = {batch.fork(h): number for h, context in handles.items() for number in contexts[context] if len(pairs[number][1]) > 1}
    rests = batch.hidden({fork: pairs[number][1][:-1] for fork, number in forks.items()}) if forks else {}
    rest = {number: rests[fork] for fork, number in forks.items()}
    for handle in (*handles, *forks):
        batch.drop(handle)
    read = {number: np.concatenate([hidden, *([rest[number]] if number in rest else [])]) for number, hidden in first.items()}
    for group in groups(read, lambda number: len(read[number]), ROWS):
        for number, rows in zip(group, batch.head([read[number] for number in group])):
            yield number, judged(rows, pairs[number][1])


def judged(rows: F, tokens: Sequence[int]) -> tuple[float, bool]:
    """The log-likelihood of tokens [T] under logits [T, V], in nats, and whether each is the likeliest."""
    value = sum(float(log_softmax(row)[token]) for row, token in zip(rows, tokens, strict=True))
    return value, all(int(row.argmax()) == token for row, token in zip(rows, tokens))


def main() -> None:
    """The harness's command. A route in --model_args may have commas."""
    from lm_eval.__main__ import cli_evaluate

    sys.argv[1:] = [BARE_ROUTE.sub(r'route="\1"', word) for word in sys.argv[1:]]
    cli_evaluate()


if __name__ == "__main__":
    main()
