"""Tokens written one at a time in a session, and what is shown of them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..arrays import F, Ints
from ..errors import TokenError
from ..model.session import Session
from .ahead import Reader
from .sampling import GREEDY, Sampling, choose

UBATCH = 512  # tokens of a prompt that are fed at once, as llama.cpp does; memory for activations does not grow beyond them

Steering = Callable[[int], Sequence[int]]


class Chooser:
    """Chooses the tokens of one reply: for each one a number is drawn from PCG64(seed), whether it is needed or not.

    how     how the next token is chosen
    before  the tokens so far, for penalties; the caller adds each one that is written
    """

    def __init__(self, how: Sampling, before: Sequence[int]) -> None:
        self.how, self.before = how, list(before)
        self.draws = np.random.Generator(np.random.PCG64(how.seed))

    def choose(self, ids: Ints, logits: F) -> int:
        """The next token. Arguments and errors as for sampling.choose."""
        return choose(ids, logits, self.before, self.how, self.draws.random())


def generate(
    session: Session,
    prompt: Sequence[int],
    count: int,
    how: Sampling = GREEDY,
    steer: Steering = lambda token: (),
    past: Sequence[int] = (),
) -> Iterator[int]:
    """Feed the prompt, then yield up to `count` tokens, each fed back; the caller stops at an end-of-generation token.

    prompt  token ids; TokenError for none
    how     how the next token is chosen
    steer   gets each token; may return tokens to write next in the model's place
    past    the tokens that the session was fed before, for penalties

    The same session, prompt and settings give the same tokens: one number per token is drawn from PCG64(seed). The last token
    is not fed. A draft head's guesses are fed along with the token before them; what follows is what follows without them.
    """
    if not prompt:
        raise TokenError("expected at least one token id, found none; give a text or ids")
    chooser, due, k = Chooser(how, [*past, *prompt]), deque[int](), how.deciding(session.n_vocab)
    *parts, last = (prompt[start : start + UBATCH] for start in range(0, len(prompt), UBATCH))
    for part in parts:
        session.forward(part, logits="last")
    following, reader = session.likeliest(last, k), Reader(session, k)
    for left in reversed(range(count)):
        token = chooser.choose(*following)
        token = due.popleft() if due else token
        chooser.before.append(token)
        due.extend(steer(token))
        yield token
        if left:
            following = reader.after(token, left - 1)


def room(ctx: int, used: int, count: int) -> int:
    """How many of `count` tokens may follow `used` ones, if `ctx` is the most in all (0: no bound). TokenError for none."""
    if not ctx:
        return count
    if used >= ctx:
        raise TokenError(
            f"there are {used:,} tokens before the reply; --ctx {ctx:,} leaves no room for it; "
            "take a larger --ctx or a shorter prompt"
        )
    return min(count, ctx - used)
