"""A request in its dialect: what it wishes, and how events become its answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..text.likelihoods import Score
from ..tokenizer import Tokenizer
from .wishes import Ended, Event, Piece, Read, Wish, Written

Json = dict[str, Any]
REASONS = {"eog": "stop", "stop": "stop", "count": "length"}  # how a reply ended -> OpenAI's finish_reason


class Asked(Protocol):
    """A request, read and checked."""

    @property
    def wishes(self) -> Sequence[Wish]:
        """One a prompt."""
        ...

    @property
    def stream(self) -> bool:
        """Whether the answer comes in pieces."""
        ...

    def whole(self, reads: Mapping[int, Read], texts: Mapping[tuple[int, int], Written]) -> Json:
        """The answer in one piece: of each prompt what was read, and (prompt, index) -> the text."""
        ...

    def pieces(self, number: int, event: Event) -> list[Json]:
        """What a stream tells of an event of prompt `number`."""
        ...

    def last(self, texts: Mapping[tuple[int, int], Written]) -> list[Json | str]:
        """What a stream ends with."""
        ...


def usage(wishes: Sequence[Wish], texts: Mapping[tuple[int, int], Written]) -> Json:
    """OpenAI's count of tokens."""
    read, written = sum(len(wish.prompt) for wish in wishes), sum(len(text.tokens) for text in texts.values())
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token's bytes as text; those that are no character become U+FFFD. Its number, if the file has no tokenizer."""
    return f"{token} " if tokenizer.problem else tokenizer.piece(token).decode("utf-8", "replace")


def shown_score(tokenizer: Tokenizer, token: int, logprob: float) -> Json:
    """A token with its log-probability, as chats and llama-server have it."""
    found = b"" if tokenizer.problem else tokenizer.piece(token)
    return {"token": token_text(tokenizer, token), "logprob": logprob, "bytes": list(found)}


def shown_scores(tokenizer: Tokenizer, score: Score, ids: bool = False) -> Json:
    """A Score as chats have it; with `ids` also the tokens' numbers, as llama-server has it."""
    one, *top = [
        ({"id": token} if ids else {}) | shown_score(tokenizer, token, logprob)
        for token, logprob in ((score.token, score.logprob), *score.top)
    ]
    return one | {"top_logprobs": top}


def kept(pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[Score]:
    """The scores of a text's tokens, without that of the token that ended it."""
    return [piece.score for piece in pieces if piece.score and piece.token not in tokenizer.eog]


def reason(ended: Ended | None) -> str | None:
    """OpenAI's finish_reason."""
    return None if ended is None else REASONS[ended.end]
