"""Faults of rotary position embedding. At position 0 nothing is rotated: the first token is right, and errors grow after it."""

from dataclasses import replace

from ..arch import Hparams
from ..arrays import F
from ..ops.rope import Rope
from .altered import At
from .changes import rotations, taps
from .fault import Fault

ROTATED = ("q rotated", "k rotated")
NORMED = {"q rotated": "q normed", "k rotated": "k normed"}


def all_dims(rope: Rope, hp: Hparams) -> Rope:
    """Every pair of a head is rotated, with the frequencies of a rotation of the whole head."""
    return rope if rope.n_rot == hp.head_dim else whole(rope, hp.head_dim)


def whole(rope: Rope, n: int) -> Rope:
    """A rotation of n numbers, with the divisors that the narrower one has, and none for the other pairs."""
    more = (1.0,) * ((n - rope.n_rot) // 2)
    return replace(rope, n_rot=n, factors=rope.factors + more, unscaled=rope.unscaled + (0.0,) * len(more) if rope.unscaled else ())


FAULTS = [
    Fault(
        id="F01",
        name="rope-all-dims",
        family="rope",
        says="RoPE rotates all dimensions of a head, where the model rotates only the first of them.",
        evidence="maxtext #4616, quant.cpp #94, aiter #2199, candle #3838",
        fix="rotate only the first rope.dimension_count numbers of each head; copy the others",
        right="refmodel.ops.rope:rope",
        at=ROTATED,
        change=rotations(all_dims),
        tensors=("attn_q.weight", "attn_k.weight"),
        keys=("rope.dimension_count",),
    ),
    Fault(
        id="F03",
        name="rope-pairing",
        family="rope",
        says="RoPE pairs the numbers of a head the other way: neighbours instead of halves, or halves instead of neighbours.",
        evidence="lattice #96, shainet #111, candle #3410, notorch #89, tiny-vllm #5",
        fix="pair (2i, 2i+1) where ggml's type is NORM, and (i, i + n/2) where it is NEOX; the architecture says which",
        right="refmodel.ops.rope:rope",
        at=ROTATED,
        change=rotations(lambda rope, hp: replace(rope, adjacent=not rope.adjacent)),
        tensors=("attn_q.weight", "attn_k.weight"),
    ),
    Fault(
        id="F05",
        name="rope-k-unrotated",
        family="rope",
        says="The keys are cached without RoPE, while the queries are rotated.",
        evidence="TensorRT-LLM #4040, kvcache-ai/sglang #31",
        fix="rotate queries and keys alike, once each, before the keys go into the cache",
        right="refmodel.ops.rope:rope",
        at=("k rotated",),
        change=taps({"k rotated": lambda x, at: before_rotation("k rotated", x, at)}, ("k normed", "k product")),
        tensors=("attn_k.weight",),
    ),
    Fault(
        id="F06",
        name="rope-base-default",
        family="rope",
        says="RoPE uses the default base of 10000 instead of the model's own.",
        evidence="koboldcpp #487, sglang #19585",
        fix="read rope.freq_base",
        right="refmodel.arch.rotation:rotation",
        at=ROTATED,
        change=rotations(lambda rope, hp: replace(rope, base=10000.0)),
        keys=("rope.freq_base",),
    ),
]


def before_rotation(site: str, x: F, at: At) -> F:
    """The heads that are rotated at a site: normed ones where the model norms them, else the product."""
    normed, product = NORMED[site], site.replace("rotated", "product")
    seen = at.seen[normed] if normed in at.seen else at.seen[product]
    return seen.reshape(x.shape).astype(x.dtype)
