"""llama-server's words: /completion, /tokenize, /detokenize, /apply-template, /props, as far as scripts use them."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..text.sampling import Sampling
from .asked import Json, kept, shown_scores
from .fields import MOST_TOP, Fields
from .served import Served
from .wishes import Ended, Event, Piece, Read, Refusal, Written

DEFAULT = Sampling(temperature=0.8)
STOPS = {"eog": "eos", "stop": "word", "count": "limit"}  # how a reply ended -> stop_type
Texts = Mapping[tuple[int, int], Written]


class Completion:
    """A request to /completion."""

    def __init__(self, served: Served, body: Any) -> None:
        self.served, fields = served, Fields(body)
        self.tokenizer, self.stream, self.start = served.model.tokenizer, fields.flag("stream"), time.monotonic()
        self.read_at = self.start
        prompt, probabilities = fields.body.get("prompt"), fields.whole("n_probs", 0, 0, MOST_TOP)
        ids, count = served.ids(prompt), fields.whole("n_predict", fields.whole("max_tokens", -1, -1), -1)
        wish = replace(served.wish(fields, ids, count, DEFAULT), top=probabilities or None)
        self.wishes = [wish if wish.count else replace(wish, echo=False)]
        how, route = wish.how[0], wish.route
        self.name = served.called(route)
        shown = {"temperature": how.temperature, "top_k": how.top_k, "top_p": how.top_p, "min_p": how.min_p, "seed": how.seed}
        shown |= {"repeat_penalty": how.repeat_penalty, "repeat_last_n": how.repeat_last, "n_predict": wish.count}
        self.settings = shown | {"stop": list(wish.stops), "n_probs": probabilities, "route": route.canonical}
        self.prompt = prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)

    def whole(self, reads: Mapping[int, Read], texts: Texts) -> Json:
        """The answer in one piece."""
        text, self.read_at = texts[0, 0], reads[0].at
        return {"content": text.text, "tokens": text.tokens} | self.probabilities(text) | self.facts(text)

    def probabilities(self, text: Written) -> Json:
        """The log-probabilities of a text's tokens, if they were asked for."""
        if self.wishes[0].top is None:
            return {}
        scores = kept(text.pieces, self.tokenizer)
        return {"completion_probabilities": [shown_scores(self.tokenizer, score, ids=True) for score in scores]}

    def facts(self, text: Written) -> Json:
        """What comes with the end of a text."""
        ended, read, written, now = text.ended, len(self.wishes[0].prompt), len(text.tokens), time.monotonic()
        assert ended
        reading, writing = 1000 * (self.read_at - self.start), 1000 * (now - self.read_at)
        timings = {"prompt_n": read, "prompt_ms": reading, "predicted_n": written, "predicted_ms": writing}
        timings |= {
            "prompt_per_second": 1000 * read / max(reading, 1e-3),
            "predicted_per_second": 1000 * written / max(writing, 1e-3),
        }
        facts = {"index": 0, "id_slot": 0, "stop": True, "model": self.name, "tokens_predicted": written, "tokens_evaluated": read}
        facts |= {"generation_settings": self.settings, "prompt": self.prompt, "has_new_line": "\n" in text.text}
        facts |= {"truncated": False, "stop_type": STOPS[ended.end], "stopping_word": ended.stop, "tokens_cached": read + written}
        return facts | {"timings": timings}

    def pieces(self, number: int, event: Event) -> list[Json]:
        """What a stream tells of an event."""
        match event:
            case Read(at=at):
                self.read_at = at
            case Piece():
                text = Written(event.text, [event.token], [event])
                return [{"index": 0, "content": event.text, "tokens": [event.token], "stop": False} | self.probabilities(text)]
            case Ended() if event.rest:
                return [{"index": 0, "content": event.rest, "tokens": [], "stop": False}]
        return []

    def last(self, texts: Texts) -> list[Json | str]:
        """What a stream ends with: the facts, without text."""
        return [{"content": "", "tokens": []} | self.facts(texts[0, 0])]


def tokenize(served: Served, body: Any) -> Json:
    """/tokenize: {"content": text} -> {"tokens": ids}."""
    fields = Fields(body)
    special, parsed = fields.flag("add_special"), fields.flag("parse_special", True)
    tokenizer = served.model.tokenizer
    ids = tokenizer.encode(fields.text("content", ""), add_special=special, parse_special=parsed)
    if not fields.flag("with_pieces"):
        return {"tokens": ids}
    return {"tokens": [{"id": token, "piece": shown_piece(tokenizer.piece(token))} for token in ids]}


def shown_piece(piece: bytes) -> str | list[int]:
    """A token's text, or its bytes if they are no text."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def detokenize(served: Served, body: Any) -> Json:
    """/detokenize: {"tokens": ids} -> {"content": text}."""
    tokens = Fields(body).body.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise Refusal("tokens is not a list of token ids; expected whole numbers", param="tokens")
    return {"content": served.model.tokenizer.decode(tokens)}


def apply_template(served: Served, body: Any) -> Json:
    """/apply-template: {"messages": ...} -> {"prompt": text}."""
    return {"prompt": served.prompt_of(Fields(body))[0]}


def props(served: Served) -> Json:
    """/props: what the server is."""
    tokenizer, limits, model = served.model.tokenizer, served.limits, served.model
    texts = [] if tokenizer.problem else tokenizer.vocab.texts
    special = {f"{name}_token": "" if token is None or not texts else texts[token] for name, token in ends(served).items()}
    settings = {"n_ctx": limits.tokens, "params": {"temperature": DEFAULT.temperature, "top_k": DEFAULT.top_k}}
    facts = {"default_generation_settings": settings, "total_slots": limits.parallel, "model_alias": served.name}
    facts |= {"model_path": model.path.name, "chat_template": served.template, "modalities": {"vision": False, "audio": False}}
    return facts | special | {"build_info": "refmodel", "n_layer": model.n_layer, "kinds": model.kinds}


def ends(served: Served) -> dict[str, int | None]:
    """The begin and end tokens."""
    return {"bos": served.model.tokenizer.bos, "eos": served.model.tokenizer.eos}
