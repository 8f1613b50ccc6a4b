"""The numerics of a batch: what a token gives does not depend on which other tokens are computed with it."""

from dataclasses import replace
from functools import partial

from ..errors import RefmodelError
from ..forward.numerics import Numerics
from ..ops.experts import by_expert
from . import fast

BY_TOKEN = {fast.linear: fast.linear_by_token}  # a product whose bits depend on the number of tokens -> one for batches


def for_batches(num: Numerics) -> Numerics:
    """The same policy as a batch computes it.

    Most policies as they are. `fast` takes one path for all counts of tokens. A policy that emulates llama.cpp stays as it is too:
    its bits do depend on how many tokens a call has, so that a batch gives each sequence calls of its own.

    RefmodelError, which names it, for any other policy whose bits depend on the company of a token.
    """
    if num.by_token or num.emulates:
        return num
    if num.linear not in BY_TOKEN:
        raise RefmodelError(
            f"numerics {num.name}: what a token gives depends on how many are computed with it, so it has no batches; "
            "take fast, reference, numpy, oracle or llamacpp, or one sequence at a time in a session"
        )
    linear = BY_TOKEN[num.linear]
    return replace(num, by_token=True, linear=linear, experts=partial(by_expert, linear))
