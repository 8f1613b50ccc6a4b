"""What the tensors of a file say by themselves: not finite, constant, dead, of too few bits, repeated, in another order."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from ..arrays import F32, Bytes, F, Ints
from ..forward.weights import Weight
from ..model.model import Model
from ..quants import FLOATS, LAYOUTS, dequantize
from ..quants.types import SIZES
from .finding import Finding

PANEL = 1 << 22  # bytes of a tensor that are looked at together
REPEATED = 0.05  # part of the embedding's rows that are another row's; measured: 0.0002 in SmolLM2, none in Gemma 3
FEW_BITS = 8.0  # bits of a weight, below which gates of the delta rule are called coarse
ALIKE = 0.3  # how much more the row sizes of queries agree in one order than in the other; measured: 0.6 to 0.8 in trained blocks


def panels(w: Weight) -> Iterator[Bytes]:
    """The packed rows of a tensor, some at a time."""
    rows = w.rows
    step = max(1, PANEL // max(1, rows.shape[1]))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def scales(w: Weight, rows: Bytes) -> F32:
    """The floats among packed rows: all of a float type; of a packed one the scales of its blocks. Empty where it has none."""
    if w.type in FLOATS:
        return dequantize(w.type, rows)
    if w.type not in LAYOUTS:
        return np.zeros(0, np.float32)
    blocks = np.ascontiguousarray(rows).view(LAYOUTS[w.type].BLOCK)
    kinds = {name: blocks.dtype[name] for name in blocks.dtype.names or ()}
    floats = [blocks[name] for name, kind in kinds.items() if kind.base.kind == "f"]
    return np.concatenate([x.astype(np.float32).ravel() for x in floats]) if floats else np.zeros(0, np.float32)


def values(model: Model) -> Iterator[Finding]:
    """Tensors with NaN or infinite numbers or scales, and tensors that are one number throughout, 0 or another."""
    broken, dead, constant = dict[str, int](), list[str](), list[str]()
    for name, w in model.weights.items():
        bad, least, most, there = 0, np.inf, -np.inf, False
        for rows in panels(w):
            x = scales(w, rows)
            finite = x[np.isfinite(x)]
            bad, there = bad + x.size - finite.size, there or x.size > 0
            least, most = min(least, finite.min(initial=np.inf)), max(most, finite.max(initial=-np.inf))
        if bad:
            broken[name] = bad
        elif there and least == most == 0:
            dead.append(name)
        elif there and least == most and w.type in FLOATS and len(w.shape) and w.shape[-1] > 1:
            constant.append(name)
    if broken:
        what = "; ".join(f"{name} has {n}" for name, n in list(broken.items())[:4])
        yield Finding(
            "not-finite",
            tuple(broken),
            f"NaN or infinite numbers or scales: {what}",
            "none: one spoils every token",
            "the checkpoint or the quantization overflowed (half floats end at 65504), or the file is damaged: make it again",
            ("F38",),
        )
    if dead:
        yield Finding(
            "dead",
            tuple(dead),
            f"{len(dead)} tensors have only zeros",
            "none: a trained tensor has no two equal halves",
            "it was never loaded or never trained; its product is 0: look for its name in the checkpoint",
            ("F60", "F61"),
        )
    if constant:
        yield Finding(
            "constant",
            tuple(constant),
            f"{len(constant)} tensors have one number throughout",
            "none in a trained file; norms of an untrained model are 1 throughout",
            "it has the number that it began with: the checkpoint's tensor was not found by its name",
            ("F61",),
        )


def coarse_gates(model: Model) -> Iterator[Finding]:
    """Gates of the delta rule in few bits: their error multiplies the state at each token."""
    found = {n: w for n, w in model.weights.items() if re.search(r"\.ssm_(alpha|beta|ba)\.weight$", n)}
    bits = {name: 8 * size / weights for name, w in found.items() for weights, size in [SIZES[w.type]]}
    coarse = [name for name in found if bits[name] < FEW_BITS]
    if coarse:
        types = ", ".join(sorted({found[name].type.name for name in coarse}))
        yield Finding(
            "coarse-gates",
            tuple(coarse),
            f"{len(coarse)} matrices of the delta rule's gates are {types}, {min(bits[n] for n in coarse):.3g} bits a weight",
            f"F32, F16, BF16 or Q8_0, at least {FEW_BITS:g} bits (the files of Qwen3.5 that are widely used have F32 or Q8_0)",
            "an error of a gate multiplies the state at every token, so it grows along the text: quantize again with "
            "--tensor-type ssm_alpha=q8_0 --tensor-type ssm_beta=q8_0",
            ("F69",),
        )


def repeated_rows(model: Model) -> Iterator[Finding]:
    """Embeddings that are another token's, byte for byte."""
    w = model.weights["token_embd.weight"]
    rows = w.rows
    counted = Counter(row.tobytes() for row in rows)
    same = sum(n for n in counted.values() if n > 1)
    if same > REPEATED * len(rows):
        most = max(counted.values())
        yield Finding(
            "repeated-embeddings",
            (w.name,),
            f"{same} of {len(rows)} rows of token_embd.weight are another row's too, one of them {most} times",
            f"at most {REPEATED:.0%}, tokens that the training never saw (measured: 0.02 % in SmolLM2, none in Gemma 3)",
            "the embedding was padded with one row, or not loaded: compare its rows with the checkpoint's",
            ("F61",),
        )


def copies(model: Model) -> Iterator[Finding]:
    """Blocks of one kind whose tensors are the same, byte for byte."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i in range(model.n_layer):
        digest = hashlib.sha256()
        for name in sorted(n for n in model.weights if n.startswith(f"blk.{i}.")):
            digest.update(name.split(".", 2)[2].encode())
            for rows in panels(model.weights[name]):
                digest.update(np.ascontiguousarray(rows).data)
        groups[digest.hexdigest()].append(i)
    same = [blocks for blocks in groups.values() if len(blocks) > 1]
    if same:
        listed = "; ".join(", ".join(map(str, blocks)) for blocks in same[:4])
        yield Finding(
            "copied-blocks",
            tuple(f"blk.{i}" for blocks in same for i in blocks),
            f"blocks that are copies of one another: {listed}",
            "none: no two trained blocks are equal",
            "somebody repeated blocks (`refmodel route --recover` finds the route), or a converter wrote one block for several",
            ("F57", "F59"),
        )


def query_gates(model: Model) -> Iterator[Finding]:
    """Queries and gates of `attn_q`: head by head a query and its gate, or all queries and then all gates.

    Queries of all heads are rotated alike, so the sizes of their rows agree, dimension by dimension; those of gates do not.
    """
    hp, paired, halved, names = model.hp, list[float](), list[float](), list[str]()
    for i in range(model.n_layer):
        w = model.weights.get(f"blk.{i}.attn_q.weight")
        if w is None or w.type not in LAYOUTS or w.shape[0] != 2 * hp.n_head * hp.head_dim or hp.n_head < 3:
            continue
        sizes = np.log(np.concatenate([np.square(dequantize(w.type, rows)).mean(axis=1) for rows in panels(w)]) + 1e-30)
        c = np.corrcoef(sizes.reshape(2 * hp.n_head, hp.head_dim))
        paired.append(within(c, np.arange(0, 2 * hp.n_head, 2)))
        halved.append(within(c, np.arange(hp.n_head)))
        names.append(w.name)
    if names and np.mean(halved) > np.mean(paired) + ALIKE:
        yield Finding(
            "query-gate-order",
            tuple(names),
            f"the rows of the first half of attn_q agree in size between heads (correlation {np.mean(halved):.2f}), those of every "
            f"second head do not ({np.mean(paired):.2f})",
            "the other way round: head by head a query, then its gate (measured: 0.6 to 0.8 against 0.2)",
            "it holds all queries, then all gates; the runtime reads gates as queries: reorder the rows when converting",
            ("F10",),
        )


def within(c: F, chosen: Ints) -> float:
    """The mean correlation between the chosen rows."""
    block = c[np.ix_(chosen, chosen)]
    return float(np.nanmean(block[~np.eye(len(chosen), dtype=bool)]))
