"""What a model computes besides its tensors: facts of the metadata that programs forget, as numbers and in words."""

import math
from collections.abc import Iterator
from typing import Any

from ..arch.rotation import Yarn
from ..model.model import Model
from ..ops.rope import Rope

Facts = dict[str, Any]


def facts(model: Model) -> Facts:
    """The facts as numbers and short words, for JSON.

    rope, rope_sliding  see `rotation`; rope_sliding is None where no block slides
    embedding_scale     factor of the embedded tokens
    query_scale         factor of the scores, (query_scale_of)^-0.5
    query_scale_of      the number that it comes from: the size of a head, or n_embd / heads
    query_growth        `by`, `context`: a query grows by · ln(1 + p // context) of itself at position p; None where none grows
    logit_softcap       c in c * tanh(logits / c); None for no cap
    window              tokens that a query of a sliding block sees, itself among them; None where no block slides
    renormalized        what is divided by its own size or sum besides the residual stream
    experts             of how many each token goes to how many; None without experts
    """
    hp = model.hp
    of = hp.query_dim or hp.head_dim
    return {
        "rope": rotation(model, hp.rope),
        "rope_sliding": rotation(model, hp.rope_sliding) if hp.rope_sliding else None,
        "embedding_scale": math.sqrt(hp.n_embd) if model.arch.FACTS.embedding_scaled else 1.0,
        "query_scale": of**-0.5,
        "query_scale_of": of,
        "query_growth": {"by": hp.temperature, "context": hp.n_trained} if hp.temperature else None,
        "logit_softcap": hp.softcap or None,
        "window": hp.window or None,
        "renormalized": list(renormalized(model)),
        "experts": {"count": hp.n_expert, "used": hp.n_used} if hp.n_expert else None,
    }


def rotation(model: Model, rope: Rope) -> Facts:
    """One rotary embedding.

    base, dims, pairs  the base of the angles, how many numbers of a head are rotated, and which two form a pair
    scaling            none, linear or yarn
    factor             by which angles are divided; 1 without scaling
    context            tokens of the training, which yarn starts from; None without it
    turns              within the context: pairs that turn so often keep their angle, and those that turn less are divided; None
                       without yarn, and where a folder has numbers of its own, which are a remark
    kept, ramp         pairs that yarn leaves as they are, and pairs of which it divides a part: each None, or the last one's number
    magnitude          factor of what is rotated
    still              how many of the pairs text does not turn, by rope.dimension_sections
    divisors           the least and the largest number by which the angle of a pair is divided; None if there are none
    divisors_in        where they are: rope_freqs.weight, or a folder's rope_type llama3; None if there are none
    """
    yarn = bool(rope.unscaled) and rope.scale != 1
    kept = [i for i, part in enumerate(rope.unscaled) if part == 1]
    some = [i for i, part in enumerate(rope.unscaled) if part > 0]
    turned = [factor for factor in rope.factors if factor != math.inf]
    md, a, own = model.file.metadata, model.architecture, "rope" in model.file.beyond
    divided = "rope_freqs.weight" if "rope_freqs.weight" in model.file.tensors else ""
    divided = divided or ("rope_type llama3" if own and max(turned, default=1) != 1 else "")
    context = md.int(f"{a}.rope.scaling.original_context_length", 0) or md.int(f"{a}.context_length")
    return {
        "base": rope.base,
        "dims": rope.n_rot,
        "pairs": "2i and 2i + 1" if rope.adjacent else f"i and i + {rope.n_rot // 2} (NeoX)",
        "scaling": "yarn" if yarn else "linear" if rope.scale != 1 else "none",
        "factor": 1 / rope.scale,
        "context": context if yarn else None,
        "turns": [turns(model, "yarn_beta_fast", Yarn.fast), turns(model, "yarn_beta_slow", Yarn.slow)]
        if yarn and not own
        else None,
        "kept": kept[-1] if yarn and kept else None,
        "ramp": some[-1] if yarn and some else None,
        "magnitude": rope.magnitude,
        "still": rope.factors.count(math.inf),
        "divisors": [min(turned), max(turned)] if divided and turned else None,
        "divisors_in": divided or None,
    }


def turns(model: Model, key: str, usual: float) -> float:
    """A number of turns of YaRN: the file's, where llama.cpp reads its key for this architecture."""
    md = model.file.metadata
    return md.float(f"{model.architecture}.rope.scaling.{key}", usual) if key in model.arch.FACTS.scaling else usual


def renormalized(model: Model) -> Iterator[str]:
    """What is normed besides the residual stream, in words."""
    hp = model.hp
    if any("attn_q_norm.weight" in model.arch.shapes(hp, i) for i in range(model.n_layer)):
        yield "each query and key of attention, by an RMS norm with weights, before RoPE"
    if hp.n_v_head:
        yield "each query and key of the delta rule, to length 1, and each head's output, by an RMS norm with weights"
    if hp.n_expert:
        yield f"the shares of the {hp.n_used} chosen experts, by their sum, after a softmax over all {hp.n_expert}"


def words(model: Model) -> dict[str, str]:
    """The same facts for a reader: name -> words. What is not there, as no cap, has no row."""
    found, hp = facts(model), model.hp
    of, scale = found["query_scale_of"], found["query_scale"]
    by_count = (
        f", n_embd / heads: llama.cpp takes {model.n_layer} blocks for the 27B" if hp.query_dim not in (0, hp.head_dim) else ""
    )
    grows = found["query_growth"]
    growth = f"; at position p each grows by {grows['by']:g} · ln(1 + p // {grows['context']}) of itself" if grows else ""
    rows = {
        "RoPE": turned(found["rope"], hp.head_dim),
        "RoPE, sliding": turned(found["rope_sliding"], hp.head_dim) if hp.rope_sliding else "",
        "embedding": f"times √{hp.n_embd} = {found['embedding_scale']:.6g}" if model.arch.FACTS.embedding_scaled else "",
        "queries": f"times {of}^-0.5 = {scale:.6g}{by_count}{growth}",
        "experts": f"{hp.n_used} of {hp.n_expert} for each token" if hp.n_expert else "",
        "renormalized": "; ".join(found["renormalized"]),
        "logits": f"{hp.softcap:g} · tanh(x / {hp.softcap:g})" if hp.softcap else "",
    }
    return {name: text for name, text in rows.items() if text}


def turned(r: Facts, head_dim: int) -> str:
    """A rotary embedding in words: base, dimensions, pairs, and how angles are scaled."""
    still = f"; the other {head_dim - r['dims']} stay as they are" if r["dims"] < head_dim else ""
    return f"base {r['base']:g}, {r['dims']} of {head_dim} dims, pairs {r['pairs']}{still}" + "".join(scaled(r))


def scaled(r: Facts) -> Iterator[str]:
    """How angles, and what is rotated, are scaled: nothing where they are not."""
    if r["scaling"] == "linear":
        yield f"; all angles are divided by {r['factor']:g} (linear scaling)"
    if r["scaling"] == "yarn":
        kept = "no pair keeps" if r["kept"] is None else f"pairs 0 to {r['kept']} keep"
        first = 0 if r["ramp"] is None else r["ramp"] + 1
        fast, slow = (f" ({r['turns'][0]:g} turns and more)", f" ({r['turns'][1]:g} turn or less)") if r["turns"] else ("", "")
        yield (
            f"; YaRN with factor {r['factor']:g} over {r['context']} tokens: {kept} their angle{fast}, "
            f"those from {first} on are divided by {r['factor']:g}{slow}, those between by a part of it"
        )
    if r["divisors"]:
        least, most = r["divisors"]
        yield f"; {r['divisors_in']} divides the angle of each pair, by {least:g} to {most:g}"
    if r["still"]:
        yield f"; text does not turn {r['still']} of the pairs, which rope.dimension_sections leaves to another axis"
    if r["magnitude"] != 1:
        yield f"; what is rotated is multiplied by {r['magnitude']:.6g}"
