"""What a prompt is too short to test: parts of a model that the same mistakes would leave unseen."""

from collections.abc import Sequence

from ..model.model import Model

CHUNK = 64  # tokens that programs usually take at once in the chunked form of the delta rule


def unreached(model: Model, calls: Sequence[Sequence[int]], chunked: bool = True) -> list[str]:
    """A phrase for each part that these calls do not reach, with the shortest run that would.

    chunked  whether the other program may compute the delta rule in chunks; llama.cpp on a CPU does not
    """
    hp, tokens, longest = model.hp, sum(map(len, calls)), max(map(len, calls))
    short = {
        "rotation (position 0 is not rotated)": 2,
        f"the edge of the window of {hp.window} tokens": hp.window + 1 if hp.window else 0,
        f"queries that grow beyond {hp.n_trained} tokens": hp.n_trained + 1 if hp.temperature else 0,
        f"the whole convolution of {hp.d_conv} tokens": hp.d_conv,
    }
    out = [f"{what}: {needed} tokens reach it" for what, needed in short.items() if tokens < needed]
    if hp.d_state and chunked and longest <= CHUNK:
        out.append(
            f"a second chunk of the delta rule, where a program has chunks of {CHUNK}: a call of {CHUNK + 1} tokens reaches it"
        )
    if len(calls) == 1:
        what = "the state and the cache" if any(hp.recurrent) else "the cache"
        out.append(f"{what} between calls: --decode 1 reaches it")
    return out
