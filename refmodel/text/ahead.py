"""The tokens of a reply are fed with a draft head's guesses at those that follow: as many as are worth it."""

from collections import deque

from ..model.likeliest import Best
from ..model.session import Session

# of this many guesses, made and fed, in passes of one token; two tokens share an unpacked block: benchmarks.drafts, docs/speed.md
COSTS = (0, 0.45, 1.9, 1.9)
MOST = len(COSTS) - 1  # guesses that are fed with a token


class Reader:
    """Feeds a reply's tokens to a session, and with each the guesses of its draft head at those that follow it, in one pass.

    session  has read what is before the reply
    k        how many likeliest next tokens are asked for

    The session counts a guess as read once the reply has confirmed it.
    """

    def __init__(self, session: Session, k: int) -> None:
        self.session, self.k, self.trust = session, k, Trust()
        self.guesses, self.rows = deque[int](), deque[Best]()
        self.fed = session.num.at_once(1 + MOST) - 1  # guesses in a pass that changes no bit

    def after(self, token: int, left: int) -> Best:
        """The k likeliest tokens after the next token of the reply, of which `left` more may be fed after this one."""
        draft, guess = self.session.draft, self.guesses.popleft() if self.guesses else None
        if draft and guess is not None:
            draft.judge(guess, token)
            self.trust.judge(guess == token)
        if self.rows and guess == token:
            self.session.confirm()
        else:
            wanted = self.trust.guesses(self.fed) if self.fed else 1  # where none is fed, each is still counted
            self.guesses = deque(self.session.guesses(token, min(wanted, left)))
            self.rows = deque(self.session.ahead([token, *list(self.guesses)[: self.fed]], self.k))
        return self.rows.popleft()


class Trust:
    """How many guesses are worth feeding, by how many of the last ones were right.

    share  of the guesses that are right, newer ones counting more. While none is made it goes back to where another is tried
    """

    def __init__(self) -> None:
        self.share = 0.8

    def judge(self, right: bool) -> None:
        """Count a guess."""
        self.share += 0.1 * (right - self.share)

    def guesses(self, most: int) -> int:
        """The number of guesses, up to `most`, with the most tokens for the time: a pass ends at the first wrong one."""
        speed = [sum(self.share**n for n in range(count + 1)) / (1 + COSTS[count]) for count in range(most + 1)]
        best = speed.index(max(speed))
        if not best:
            self.share += 0.05 * (COSTS[1] + 0.1 - self.share)
        return best
