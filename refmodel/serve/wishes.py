"""What a request asks of the model, and what the worker answers, in values that know nothing of HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..model.route import Route
from ..text.likelihoods import Score
from ..text.sampling import Sampling


class Refusal(Exception):
    """A request that is answered by an error.

    message  one line: what was found, what was expected, what to do
    status   of HTTP
    kind     OpenAI's `type`: invalid_request_error, authentication_error, server_error, ...
    param    the field that is wrong
    code     OpenAI's `code`, where it has one
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code


@dataclass(frozen=True)
class Wish:
    """Texts that follow one prompt.

    route   which block runs at each position
    prompt  its token ids, at least one
    count   most tokens of each text; 0 with `echo` only reads the prompt
    how     how tokens are chosen, for each text
    stops   strings that end a text
    top     how many alternatives come with each token's log-probability; None for no log-probabilities
    echo    whether the prompt's tokens are scored too, if `top` is not None
    """

    route: Route
    prompt: Sequence[int]
    count: int
    how: Sequence[Sampling]
    stops: Sequence[str] = ()
    top: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class Read:
    """The prompt was read, at time.monotonic() `at`; the scores of its tokens but the first, if they were asked for."""

    at: float
    scores: Sequence[Score] = ()


@dataclass(frozen=True)
class Piece:
    """A token of text `index`, the text that can be shown with it, and its score if it was asked for."""

    index: int
    token: int
    text: str
    score: Score | None = None


@dataclass(frozen=True)
class Ended:
    """Text `index` is complete. `rest` is text that was held back, `end` as Reply has it, `stop` the string that ended it."""

    index: int
    end: str
    rest: str = ""
    stop: str = ""


@dataclass(frozen=True)
class Failed:
    """The request is answered by an error, and nothing follows."""

    refusal: Refusal


Event = Read | Piece | Ended | Failed


@dataclass
class Written:
    """One text as it is put together from its events."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    ended: Ended | None = None

    def add(self, event: Piece | Ended) -> None:
        """Take one more event of this text."""
        if isinstance(event, Piece):
            self.text += event.text
            self.tokens.append(event.token)
            self.pieces.append(event)
        else:
            self.text, self.ended = self.text + event.rest, event
