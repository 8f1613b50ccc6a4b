"""The anatomy of a model: what each block does to the tokens of a text, in one pass of the model in its own order.

Source: block influence, arXiv:2403.03853; angular distance of windows, arXiv:2403.17887; the logit lens, nostalgebraist 2020.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..arrays import F
from ..forward.numerics import Numerics
from ..frames import dataset, table
from ..model.batch import Batch
from ..model.model import Model
from ..model.session import checked_tokens
from ..notebook import html_of


@dataclass(frozen=True)
class BlockFacts:
    """What one block does, as means over the tokens of the text.

    block      its number; kind: what it is
    norm       length of the residual stream after it
    influence  1 - cosine of its input and output: how much it turns the stream
    rank       place of the token that the whole model chooses, if the head read the stream here: 0 is the first
    chance     probability of that token here
    entropy    of its attention, in nats, over heads too; None for other kinds, or where the numerics makes no scores
    decays     of a delta block: what is left of the state after one token, for each head, rising; empty for other kinds
    """

    block: int
    kind: str
    norm: float
    influence: float
    rank: int
    chance: float
    entropy: float | None
    decays: tuple[float, ...]


@dataclass(frozen=True)
class Anatomy:
    """All blocks, and how far windows turn the stream.

    blocks  one entry each
    angles  [N + 1, N + 1]: angles[i, j] is the angle between what block i reads and what block j reads, in half turns, i < j;
            0 elsewhere. A window i, j with a small angle can be repeated or left out with little effect
    token   the token that the model chooses after the text, as text
    """

    blocks: Sequence[BlockFacts]
    angles: F
    token: str

    def to_polars(self) -> Any:
        """The blocks as a polars.DataFrame, a row each. RefmodelError without polars."""
        return table([asdict(one) | {"decays": list(one.decays)} for one in self.blocks])

    def to_xarray(self) -> Any:
        """All of it as an xarray.Dataset: a variable of each fact over `block`, and `angle` over `first` and `end`.

        RefmodelError without xarray.
        """
        facts = ("kind", "norm", "influence", "rank", "chance")
        variables: dict[str, Any] = {name: (["block"], [getattr(one, name) for one in self.blocks]) for name in facts}
        entropies = [np.nan if one.entropy is None else one.entropy for one in self.blocks]
        variables |= {"entropy": (["block"], entropies), "angle": (["first", "end"], self.angles)}
        return dataset(variables, token=self.token)

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)


@dataclass
class Watcher:
    """A tapper that keeps the stream after every block, and means of what blocks of a kind show."""

    kinds: Sequence[str]
    streams: dict[int, F] = field(default_factory=dict)
    entropies: dict[int, float] = field(default_factory=dict)
    decays: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def __call__(self, name: str, x: F) -> F:
        stem, _, rest = name.partition("-")
        if rest.isdigit():
            at = int(rest)
            if stem == "l_out":
                self.streams[at] = x.astype(np.float64)
            elif stem == "kq_soft_max":
                self.entropies[at] = entropy(x)
            elif stem == "gate" and self.kinds[at] == "delta":
                self.decays[at] = tuple(sorted(np.exp(x.astype(np.float64).reshape(len(x), -1).mean(axis=0)).tolist()))
        return x


def entropy(weights: F) -> float:
    """The mean entropy of attention's weights [H, T, S] over heads and tokens, in nats."""
    p = weights.astype(np.float64)
    return float(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1).mean())


def cosines(a: F, b: F) -> F:
    """The cosine of each row of a with the same row of b: [T, E] twice -> [T]; 1 where one of them is 0."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.clip(np.divide((a * b).sum(axis=1), lengths, out=np.ones(len(a)), where=lengths > 0), -1, 1)


def anatomy(model: Model, tokens: Sequence[int], numerics: Numerics) -> Anatomy:
    """Run the tokens once. TokenError for none, or one outside of the vocabulary.

    Under numerics without scores (flash attention) entropies are None.
    """
    watcher, n = Watcher(model.kinds), model.n_layer
    logits = model.forward(tokens, None, numerics, "last", watcher, scores=numerics.scores)[0]
    batch = model.batch("numpy")
    streams: list[F] = [batch.embedded([checked_tokens(tokens, model.n_vocab)])[0].astype(np.float64)]
    streams += [watcher.streams[at] for at in range(n)]
    angles = np.zeros((n + 1, n + 1))
    for i in range(n + 1):
        for j in range(i + 1, n + 1):
            angles[i, j] = float(np.arccos(cosines(streams[i], streams[j])).mean() / np.pi)
    chosen = int(np.argmax(logits))
    blocks = []
    for at in range(n):
        rank, chance = seen_through_the_head(batch, streams[at + 1][-1:], chosen)
        turned = float(1 - cosines(streams[at], streams[at + 1]).mean())
        norm = float(np.linalg.norm(streams[at + 1], axis=1).mean())
        about = watcher.entropies.get(at), watcher.decays.get(at, ())
        blocks.append(BlockFacts(at, model.kinds[at], norm, turned, rank, chance, *about))
    return Anatomy(blocks, angles, model.tokenizer.decode([chosen]) if not model.tokenizer.problem else str(chosen))


def seen_through_the_head(batch: Batch, stream: F, token: int) -> tuple[int, float]:
    """The rank and the probability of a token if the model ended here: the stream [1, E] through the final norm and the head."""
    (hidden,) = batch.normed([stream.astype(batch.num.dtype)])
    logits = batch.head([hidden])[0][0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    return int((logits > logits[token]).sum()), float(shares[token] / shares.sum())
