"""A reply as its tokens come: text, stop strings, loops."""

from collections.abc import Iterable, Iterator, Sequence

from ..tokenizer import Tokenizer


class Reply:
    """A reply as it is written: `tokens`, `text`, and how it ended: `end` is "eog", "stop", or "count" if nothing ended it.

    loop  the length of the phrase that it repeats; 0 if it does not loop
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, StopStrings(stops)
        self.tokens: list[int] = []
        self.text, self.end = "", "count"
        self.loop = 0  # tokens of the phrase that is repeated and repeated
        self._known, self._stream = not tokenizer.problem, tokenizer.stream()

    def read(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token, up to an end-of-generation token or a stop string; ids if there is no tokenizer.

        Text that may begin a stop string, and bytes that are no character yet, come with a later token.
        """
        for token in tokens:
            yield self.take(token)
            if self.end != "count":
                return
        yield self.rest()

    def take(self, token: int) -> str:
        """Read one token: the text that it adds. `end` says whether it was the last one."""
        self.tokens.append(token)
        self.loop = self.loop or repeated(self.tokens)
        if token in self.tokenizer.eog:
            self.end = "eog"
            return self.rest()
        text = self._shown(self.stops.feed(self._stream.feed(token) if self._known else f"{token} "))
        if self.stops.found:
            self.end = "stop"
        return text

    def rest(self) -> str:
        """The text that was held back, when no more tokens come."""
        return self._shown(self.stops.feed(self._stream.end()) + self.stops.rest())

    def _shown(self, text: str) -> str:
        self.text += text
        return text


class StopStrings:
    """Finds the first of some strings in text that comes in pieces, and holds back what may be part of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self.held, self.found = "", ""

    def feed(self, text: str) -> str:
        """The text that is safe to show: up to a stop string, or up to what may become one."""
        if self.found:
            return ""
        self.held += text
        places = [(at + len(stop), at, stop) for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if places:  # the one that is whole first, so that it does not matter how the text is cut
            _, at, self.found = min(places)
        else:
            at = min((self._begins(stop) for stop in self.stops), default=len(self.held))
        shown, self.held = self.held[:at], self.held[at:]
        return shown

    def _begins(self, stop: str) -> int:
        """Where the longest end of the held text that begins the stop string starts."""
        end = len(self.held)
        return next(at for at in range(max(0, end - len(stop) + 1), end + 1) if stop.startswith(self.held[at:]))

    def rest(self) -> str:
        """The text that was held back, if no stop string came."""
        return "" if self.found else self.held


def repeated(tokens: Sequence[int], longest: int = 64, least: int = 48) -> int:
    """The length of the phrase that the last tokens repeat, four times or more and for `least` tokens or more; 0 if there is none.

    longest  of the phrases looked for, in tokens
    """
    for length in range(1, min(longest, len(tokens) - 1) + 1):
        if tokens[-1] != tokens[-1 - length]:  # so it is for most, after every token
            continue
        span = max(least, 4 * length)
        if len(tokens) >= span and all(tokens[-i] == tokens[-i - length] for i in range(2, span - length + 1)):
            return length
    return 0
