"""Faults of rotary position embedding. At position 0 nothing is rotated: the first token is right, and errors grow after it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F, Ints
from ..model.model import Model
from ..ops.rope import Rope
from .altered import At
from .changes import hparams, operation, rotations, taps
from .fault import LATER, Change, Engine, Fault

ROTATED = ("q rotated", "k rotated")
HEADS = ("attn_q.weight", "attn_k.weight")
NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")
READS = ("q part", "q product", "q normed", "k product", "k normed")
new = partial(Fault, family="rope", at=ROTATED, right="refmodel.ops.rope:rope", tensors=HEADS)


def all_dims(rope: Rope, hp: Hparams) -> Rope:
    """Every pair of a head is rotated, with the frequencies of a rotation of the whole head."""
    more = (1.0,) * ((hp.head_dim - rope.n_rot) // 2)
    unscaled = rope.unscaled and rope.unscaled + (0.0,) * len(more)
    return replace(rope, n_rot=hp.head_dim, factors=rope.factors + more, unscaled=unscaled)


def of_whole_head(rope: Rope, hp: Hparams) -> Rope:
    """The frequencies base^(-2i/D) of a rotation of the whole head, for the pairs that are rotated."""
    return replace(rope, base=float(rope.base ** (rope.n_rot / hp.head_dim)))


def far_pairs(healthy: Any, hp: Hparams, x: F, pos: Ints, rope: Rope) -> F:
    """Pairs (i, i + D/2) instead of (i, i + n/2): the second halves of pairs are read after the middle of the head."""
    half, middle = rope.n_rot // 2, x.shape[-1] // 2
    mine = [*range(half), *range(middle, middle + half)]
    out = x.copy()
    out[..., mine] = healthy(np.ascontiguousarray(x[..., mine]), pos, rope)
    return out


def in_part(model: Model) -> bool:
    """Whether only a part of each head is rotated, in pairs of its halves."""
    return model.hp.rope.n_rot < model.hp.head_dim and not model.hp.rope.adjacent


def sections(model: Model) -> list[int]:
    """How many pairs read the time, height and width of a token; [] where the architecture has no such sections."""
    if not hasattr(model.arch, "turned_by_text"):
        return []
    return [int(n) for n in model.file.metadata.ints(f"{model.architecture}.rope.dimension_sections", 4)][:3]


def only_time(in_turns: bool) -> Change:
    """Only the pairs of the time section are turned, the others as if their position were 0: dealt out in turns, or in order."""

    def on(e: Engine) -> Engine | None:
        dealt, rope = sections(e.model), e.model.hp.rope
        if not dealt or not any(dealt[1:]):
            return None
        pairs = range(rope.n_rot // 2)
        time = [i % 3 == 0 and i % sum(dealt) < 3 * dealt[0] if in_turns else i % sum(dealt) < dealt[0] for i in pairs]
        factors = tuple(f if mine else np.inf for f, mine in zip(rope.factors, time, strict=True))
        return hparams(lambda hp: replace(hp, rope=replace(rope, factors=factors)))(e)

    return on


def moved(pos: Callable[[Ints], Ints]) -> Change:
    """Other positions of the new tokens where heads are rotated."""
    return operation("rope", lambda healthy, hp, x, now, rope: healthy(x, pos(now), rope))


def before_rotation(x: F, at: At, which: str) -> F:
    """The heads of queries or keys, `q` or `k`, in the shape of x, as they are before they are rotated."""
    seen = (at.seen[name] for name in (f"{which} normed", f"{which} part", f"{which} product") if name in at.seen)
    return next(seen).reshape(x.shape)


def product(x: F, at: At, which: str) -> F:
    """The heads of queries or keys in the shape of x, before they are normed."""
    return at.seen[f"{which} part" if f"{which} part" in at.seen else f"{which} product"].reshape(x.shape)


def turned(x: F, at: At) -> F:
    """Heads rotated as the healthy step does it."""
    hp = at.c.hp
    rope = hp.rope_sliding if hp.rope_sliding and hp.sliding[at.w.index] else hp.rope
    return np.asarray(at.c.num.rope(np.ascontiguousarray(x), at.c.pos, rope))


def normed(x: F, at: At, which: str) -> F:
    """Heads normed with the weights of queries or keys."""
    weight = getattr(at.w, f"attn_{which}_norm").dense(at.c.num.dtype)
    return np.asarray(at.c.num.rms_norm(np.ascontiguousarray(x), at.c.hp.eps) * weight)


def rotated_first(which: str) -> Callable[[F, At], F]:
    """Heads that are rotated, and then normed."""
    return lambda x, at: normed(turned(product(x, at, which), at), at, which)


def rest_of_product(which: str) -> Callable[[F, At], F]:
    """Heads whose numbers that are not rotated are those from before the norm."""
    return lambda x, at: np.concatenate([x[..., : at.c.hp.rope.n_rot], product(x, at, which)[..., at.c.hp.rope.n_rot :]], axis=-1)


def shifted_query(x: F, at: At) -> F:
    """Queries rotated by one position more."""
    later = replace(at, c=replace(at.c, pos=at.c.pos + 1))
    return turned(before_rotation(x, at, "q"), later)


FAULTS: list[Fault] = [
    new(
        id="F01",
        name="rope-all-dims",
        says="RoPE rotates all dimensions of a head, where the model rotates only the first of them.",
        evidence="maxtext #4616, quant.cpp #94, aiter #2199, candle #3838",
        fix="rotate only the first rope.dimension_count numbers of each head, and copy the others",
        change=rotations(all_dims),
        keys=("rope.dimension_count",),
    ),
    new(
        id="F02",
        name="rope-frequencies-of-head",
        says="The frequencies of RoPE are those of the whole head, base^(-2i/D), where only a part of it is rotated.",
        evidence="pie #602, pie #603",
        fix="take base^(-2i/n) with n = rope.dimension_count, not the width of a head",
        change=rotations(of_whole_head),
        keys=("rope.dimension_count",),
    ),
    new(
        id="F02",
        name="rope-far-pairs",
        says="RoPE pairs number i with i + D/2 of the head, where only n numbers are rotated and i + n/2 is meant.",
        evidence="pie #602, pie #603",
        fix="pair i with i + n/2, where n is rope.dimension_count",
        change=operation("rope", far_pairs, in_part),
        keys=("rope.dimension_count",),
    ),
    new(
        id="F03",
        name="rope-pairing",
        says="RoPE pairs the numbers of a head the other way: neighbours instead of halves, or halves instead of neighbours.",
        evidence="lattice #96, shainet #111, candle #3410, notorch #89, tiny-vllm #5",
        fix="pair (2i, 2i+1) where ggml's type is NORM, and (i, i + n/2) where it is NEOX; the architecture says which",
        change=rotations(lambda rope, hp: replace(rope, adjacent=not rope.adjacent)),
    ),
    new(
        id="F04",
        name="mrope-axes-dropped",
        says="Only the pairs of the time section are rotated; those of height and width get position 0, also for text.",
        evidence="sglang #35744, vLLM #32143, mlx-node #80, MNN #4133",
        fix="give all three axes the token's position in text; the sections are dealt out in turns t, h, w",
        right="refmodel.arch.rotation:turned_by_text",
        change=only_time(in_turns=True),
        keys=("rope.dimension_sections",),
    ),
    new(
        id="F04",
        name="mrope-first-section",
        says="RoPE rotates only the first section of pairs, counted in order, as if the other sections were not for text.",
        evidence="mobius #522, sglang #5265, candle #2814, imp #1172",
        fix="give all three axes the token's position in text; rope.dimension_sections does not shorten the rotation",
        right="refmodel.arch.rotation:turned_by_text",
        change=only_time(in_turns=False),
        keys=("rope.dimension_sections",),
    ),
    new(
        id="F05",
        name="rope-k-unrotated",
        says="The keys are cached without RoPE, while the queries are rotated.",
        evidence="TensorRT-LLM #4040, kvcache-ai/sglang #31",
        fix="rotate queries and keys alike, once each, before the keys go into the cache",
        at=("k rotated",),
        change=taps({"k rotated": lambda x, at: before_rotation(x, at, "k")}, READS),
        tensors=("attn_k.weight",),
    ),
    new(
        id="F05",
        name="rope-twice",
        says="Queries and keys are rotated twice: once in the layer, and again where they are attended to.",
        evidence="TensorRT-LLM #4040, kvcache-ai/sglang #31",
        fix="rotate queries and keys once",
        change=operation("rope", lambda healthy, hp, x, pos, rope: healthy(healthy(x, pos, rope), pos, rope)),
    ),
    new(
        id="rope-missing",
        name="rope-missing",
        says="Neither queries nor keys are rotated.",
        evidence="sparkinfer #149",
        fix="rotate queries and keys, in every path",
        change=taps({f"{which} rotated": partial(before_rotation, which=which) for which in "qk"}, READS),
    ),
    new(
        id="rope-q-unrotated",
        name="rope-q-unrotated",
        says="The queries are not rotated, while the keys are.",
        evidence="the class of TensorRT-LLM #4040",
        fix="rotate queries and keys alike, once each",
        at=("q rotated",),
        change=taps({"q rotated": partial(before_rotation, which="q")}, READS),
        tensors=("attn_q.weight",),
    ),
    new(
        id="rope-backwards",
        name="rope-backwards",
        says="Heads are rotated the other way: the sine has the other sign.",
        evidence="a kind of fault of ports",
        fix="subtract x2 sin in the first half, and add x1 sin in the second",
        change=moved(lambda pos: -pos),
    ),
    new(
        id="F07",
        name="rope-before-norm",
        says="Queries and keys are rotated first and normed then.",
        evidence="aprender #2085, tt-mlir #9042",
        fix="norm each head, multiply by attn_q_norm or attn_k_norm, then rotate",
        right="refmodel.arch.qwen3:attention",
        change=taps(
            {f"{which} rotated": rotated_first(which) for which in "qk"}, READS, lambda model: model.blocks[-1].has("attn_q_norm")
        ),
        tensors=NORMS,
    ),
    new(
        id="F08",
        name="rope-writes-rotated-only",
        says="A fused norm and RoPE writes only the rotated numbers of a head; the others stay as they were before the norm.",
        evidence="sparkinfer #518",
        fix="write the normed numbers after rope.dimension_count too",
        right="refmodel.arch.qwen35:full_attention",
        change=taps({f"{which} rotated": rest_of_product(which) for which in "qk"}, READS, in_part),
        tensors=NORMS,
        keys=("rope.dimension_count",),
    ),
    new(
        id="F09",
        name="position-off-by-one",
        says="All positions are one too large; attention sees only their differences.",
        evidence="a symmetric shift is a gauge of full attention",
        fix="nothing in the logits; count positions from 0 if traces are to be compared",
        right="refmodel.model.session:_trunk",
        change=moved(lambda pos: pos + 1),
        placebo=True,
    ),
    new(
        id="F09",
        name="position-of-query-off",
        says="The positions of the queries are one larger than those of the keys.",
        evidence="an asymmetric shift; the class is that of keys without RoPE",
        fix="rotate the query and the key of a token by the same position",
        at=("q rotated",),
        change=taps({"q rotated": lambda x, at: shifted_query(x, at)}, READS),
        tensors=("attn_q.weight",),
    ),
    new(
        id="position-of-call",
        name="position-of-call",
        says="Positions begin at 0 again in every call, so that decoded tokens are rotated as if they came first.",
        evidence="a kind of engine fault; RoPE offsets that are not carried to decoding",
        fix="count positions from the beginning of the sequence",
        right="refmodel.model.session:_trunk",
        change=moved(lambda pos: pos - pos[0]),
        when=LATER,
    ),
]
