"""What the tensors of a file are to those of a second file of the same model: scaled, shifted, in another order, another tensor.

The second file is another GGUF or the folder that it was made of; both are read under llama.cpp's names and in its order. A sound
quantization of a tensor correlates with it by 0.99 and more in 4 bits, and by 0.9 in 2 bits.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..arrays import F32, Ints
from ..errors import RefmodelError
from ..forward.weights import Weight
from ..hf.orders import after_keys, neighbours, tiled
from ..model.model import Model
from ..quants import LAYOUTS, dequantize
from .audit_tensors import panels
from .finding import Finding

LOW = 0.85  # correlation of a tensor with its source, below which it is called another; 2-bit types have 0.9
COLUMNS = 256  # of each row that are compared
MOST = 1 << 14  # rows of a tensor that are compared
SLOPE, OFFSET = 0.1, 0.2  # how far a factor may be from 1, and an offset of a vector from 0
NORMAL = f"at least {LOW} (0.99 and more for types of 4 bits, measured on golden/austen)"
Order = Callable[[Any, int], Ints]


def halves(hp: Any, count: int) -> Ints:
    """Rows of queries and gates head by head, as they are where all queries come first: ours[i] = halved[index[i]]."""
    return np.arange(count).reshape(2, hp.n_head, -1).swapaxes(0, 1).ravel()


def back(order: Order) -> Order:
    """The order that undoes another."""
    return lambda hp, count: np.argsort(order(hp, count))


def of_rope(hp: Any, count: int) -> Ints:
    """Rows of heads whose rotated pairs are moved next to each other."""
    return neighbours(count // hp.head_dim, count)


# the end of a tensor's name -> orders of its rows (of a vector's numbers) that converters and programs mistake, in words
TILED = (("its value heads are grouped by key head, not tiled", tiled), ("its value heads are tiled twice", back(tiled)))
ROPED = (
    ("its rows are permuted for pairs side by side", of_rope),
    ("its rows are permuted back to pairs in halves", back(of_rope)),
)
ORDERS: dict[str, tuple[tuple[str, Order], ...]] = {
    "attn_q.weight": (*ROPED, ("queries and gates are halves, not head by head", halves), ("they are cut twice", back(halves))),
    "attn_k.weight": ROPED,
    "attn_gate.weight": TILED,
    "ssm_alpha.weight": TILED,
    "ssm_beta.weight": TILED,
    "ssm_dt.bias": TILED,
    "ssm_a": TILED,
    "attn_qkv.weight": (("its value heads are grouped by key head, not tiled", after_keys), ("tiled twice", back(after_keys))),
    "ssm_conv1d.weight": (("its value heads are grouped by key head, not tiled", after_keys), ("tiled twice", back(after_keys))),
}
FAULTS = {"grouped": ("F20",), "tiled": ("F20",), "queries": ("F10",), "pairs": ("F03",)}
CHANGES: dict[str, tuple[tuple[str, Callable[[F32], F32], tuple[str, ...]], ...]] = {
    "ssm_a": (
        ("it is log(-x) of the source: A_log, where -exp(A_log) belongs", lambda x: np.log(-x), ("F27",)),
        ("it is -exp(x) of the source: the exponential was taken twice", lambda x: -np.exp(x), ("F27",)),
        ("its sign is turned", lambda x: -x, ("F27",)),
    ),
    "ssm_conv1d.weight": (
        ("its taps are in reverse order", lambda x: x[:, ::-1], ("F42",)),
        ("its taps are one late", lambda x: np.roll(x, 1, axis=-1), ("F42",)),
    ),
}


def against_source(model: Model, source: Model, seen: Callable[[str], None]) -> Iterator[Finding]:
    """Findings on every tensor that both files have. RefmodelError if they are not of one model.

    seen  called with the name of each tensor
    """
    if (model.architecture, model.hp.n_embd, model.n_vocab) != (source.architecture, source.hp.n_embd, source.n_vocab):
        raise RefmodelError(
            f"--source {source.path}: is not the same model as {model.path}: {source.architecture} of width {source.hp.n_embd} "
            f"and {source.n_vocab} tokens, not {model.architecture} of {model.hp.n_embd} and {model.n_vocab}; give the file "
            "that it was made of"
        )
    for name, w in model.weights.items():
        other = source.weights.get(name)
        if other is None or other.shape != w.shape or w.type not in LAYOUTS or other.type not in LAYOUTS:
            continue
        seen(name)
        ours, theirs = sampled(w), sampled(other)
        finding = of_pair(model, source, name, ours, theirs)
        if finding:
            yield finding


def sampled(w: Weight) -> F32:
    """Some columns of a tensor's rows: [O, up to 256]; a vector as one column."""
    if len(w.shape) == 1:
        return w.dense(np.float32)[:, None]
    parts, left = list[F32](), MOST
    for rows in panels(w):
        x = dequantize(w.type, rows[:left])
        parts.append(x[:, :: max(1, x.shape[1] // COLUMNS)])
        left -= len(parts[-1])
        if left <= 0:
            break
    return np.concatenate(parts)


def correlation(a: F32, b: F32) -> float:
    """The correlation of two arrays of one shape; of one constant array 0, of two 1."""
    x, y = (v.astype(np.float64).ravel() - float(v.mean()) for v in (a, b))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float(np.allclose(a, b))


def of_pair(model: Model, source: Model, name: str, ours: F32, theirs: F32) -> Finding | None:
    """What is wrong with a tensor next to its source; None if nothing is."""
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    found = correlation(ours, theirs)
    if found >= LOW or not theirs.std():
        return scaled(name, ours, theirs, found)
    why, faults = explained(model, source, name, ours, theirs)
    measured = f"{name} correlates with its source by {found:.3f}" + (f"; {why}" if why else "")
    means = (
        "the converter has another order than this architecture reads: convert it again with one that knows the architecture"
        if why
        else "it is of another model or training, or packed blocks were moved as if they were numbers: quantize the source again"
    )
    return Finding("unlike-source", (name,), measured, NORMAL, means, faults or (() if why else ("F21", "F63")))


def scaled(name: str, ours: F32, theirs: F32, found: float) -> Finding | None:
    """What a tensor that correlates with its source has besides: a factor, or for a vector an offset."""
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    offset = float(np.median(a - b))
    if ours.shape[1] == 1 and abs(offset) > OFFSET and np.abs(a - b - offset).max() < OFFSET:
        once = "norm.weight" in name
        faults = (("F15" if offset > 0 else "F14"),) if once else ("F28",)
        means = (
            ("1 was added twice" if offset > 0 else "1 + w is missing: w itself is stored")
            if once
            else "a constant was added to it"
        )
        return Finding("offset", (name,), f"{name} is its source plus {offset:.3g}", "equal to its source", means, faults)
    size = float(b @ b)
    slope = float(a @ b) / size if size else 1.0
    if abs(slope - 1) > SLOPE:
        words = f"{name} is {slope:.3g} times its source (correlation {found:.3f})"
        return Finding("scaled", (name,), words, "between 0.9 and 1.1 times its source", "its scales are wrong", ("F68",))
    return None


def explained(model: Model, source: Model, name: str, ours: F32, theirs: F32) -> tuple[str, tuple[str, ...]]:
    """The relation of a tensor to its source, in words, and the faults that make it; empty if none is found."""
    end, hp = (name.split(".", 2)[2] if name.startswith("blk.") else name), model.hp
    for words, change, ids in CHANGES.get(end, ()):
        with np.errstate(invalid="ignore"):
            other = change(theirs)
        if np.isfinite(other).all() and correlation(ours, other) >= LOW:
            return words, ids
    for words, order in ORDERS.get(end, ()):
        index = order_of(order, hp, len(theirs))
        if index is not None and correlation(ours[index], theirs) >= LOW:
            return words, next((ids for word, ids in FAULTS.items() if word in words), ())
    if ours.shape[0] == ours.shape[1] and correlation(ours.T, theirs) >= LOW:
        return "it is transposed", ("F63",)
    return elsewhere(source, name, ours) or heads(hp, ours, theirs)


def order_of(order: Order, hp: Any, count: int) -> Ints | None:
    """An order of `count` rows; None if they are not so many."""
    try:
        return order(hp, count)
    except (ValueError, ZeroDivisionError):
        return None


def elsewhere(source: Model, name: str, ours: F32) -> tuple[str, tuple[str, ...]] | None:
    """Another tensor of the source that it is: in the same block, or of that name in another; None if it is none."""
    if not name.startswith("blk."):
        return None
    _, number, end = name.split(".", 2)
    here = [n for n in source.weights if n.startswith(f"blk.{number}.")]
    there = [f"blk.{i}.{end}" for i in range(source.n_layer)]
    for other in [*here, *there]:
        w = source.weights.get(other)
        if other == name or w is None or w.type not in LAYOUTS or w.shape != source.weights[name].shape:
            continue
        if correlation(ours, sampled(w)) >= LOW:
            return f"it is the source's {other}", ("F23",) if "ssm_" in other else ("F63",)
    return None


def heads(hp: Any, ours: F32, theirs: F32) -> tuple[str, tuple[str, ...]]:
    """A permutation of heads that makes one of the other, in words."""
    for count in (hp.n_v_head, 2 * hp.n_head, hp.n_head, hp.n_head_kv):
        if not count or len(ours) % count or len(ours) // count * ours.shape[1] < 16:
            continue
        a, b = (x.reshape(count, -1).astype(np.float64) for x in (ours, theirs))
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (a, b))
        c = a @ b.T
        index = c.argmax(axis=1)
        if len(set(index.tolist())) == count and c[np.arange(count), index].min() >= LOW:
            return f"its {count} heads are permuted: head i is the source's {', '.join(map(str, index[:8]))}", ("F20",)
    return "", ()
