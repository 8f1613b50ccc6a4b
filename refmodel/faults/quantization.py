"""Faults of reading packed weights, and of rounding what was not rounded."""

from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arch import Hparams
from ..arrays import F, Matrix
from ..model.model import Model
from ..quants import FLOATS, QUANTS, dequantize
from .altered import At
from .changes import decoded, operation, repacked, taps
from .fault import Fault

PRODUCTS = (
    "embedding", "q product", "k product", "v product", "mixed", "ffn gate", "ffn up", "ffn down", "logits",
    "qkv product", "z", "alpha", "beta raw", "ba product", "short conv gates", "router", "expert gate", "expert up", "expert down",
    "shared expert product", "shared expert's score",
)  # fmt: skip
HALVES = tuple(kind for kind, quant in QUANTS.items() if "d" in (quant.BLOCK.names or ()) and quant.BLOCK["d"] == "<f2")

new = partial(Fault, family="quantization", at=PRODUCTS)


def late_scales(blocks: Any) -> None:
    """The scales and minima of the last two groups of Q4_K lose their two high bits."""
    blocks["scales"][..., [2, 3, 6, 7]] &= 63


def fifth_bits(blocks: Any) -> None:
    """The fifth bits of Q5_K go to the neighbouring group."""
    qh = blocks["qh"]
    blocks["qh"] = (qh & 0x55) << 1 | (qh & 0xAA) >> 1


def third_bits(blocks: Any) -> None:
    """The third bits of Q3_K count the other way."""
    blocks["hmask"] = ~blocks["hmask"]


def scale_nibbles(blocks: Any) -> None:
    """The scales and the minima of Q2_K are exchanged."""
    blocks["scales"] = blocks["scales"] << 4 | blocks["scales"] >> 4


def no_minimum(blocks: Any) -> None:
    """Blocks of Q4_1 without their minimum."""
    blocks["m"] = 0


def signed_codes(blocks: Any) -> None:
    """The codes of Q4_0 are read as signed numbers, not as numbers from which 8 is taken."""
    blocks["qs"] ^= 0x88


def no_scales(blocks: Any) -> None:
    """Every block of a row has the scale of its first one."""
    blocks["d"] = blocks["d"][..., :1]


def last_block_lost(blocks: Any) -> None:
    """The last block of each row is zero."""
    blocks[..., -1] = np.zeros((), blocks.dtype)


def in_four_bits(x: F) -> F:
    """The columns of x rounded to 16 steps, each 32 of a row with a scale of their own."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 32)])
    groups = padded.reshape(*x.shape[:-1], -1, 32)
    step = np.abs(groups).max(axis=-1, keepdims=True) / 7
    return (np.rint(groups / np.where(step, step, 1)) * step).reshape(padded.shape)[..., : x.shape[-1]].astype(x.dtype)


def coarse(which: str) -> Any:
    """The product with a matrix of alpha or beta that was quantized to four bits."""

    def patch(x: F, at: At) -> F:
        w = at.w.ssm_beta if which == "beta" else at.w.ssm_alpha
        return np.asarray(at.seen["input norm"] @ in_four_bits(decoded(w)).T.astype(x.dtype)).reshape(x.shape)

    return patch


def has_gates(model: Model) -> bool:
    """Whether alphas and betas are matrices of their own."""
    return any(block.has("ssm_alpha") for block in model.blocks)


def coarse_activations(healthy: Any, hp: Hparams, w: Matrix, x: F) -> F:
    """The product with tokens that are rounded to 8 bits, each 32 numbers with a scale of their own."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % 32)))
    groups = padded.reshape(len(x), -1, 32)
    step = np.abs(groups).max(axis=-1, keepdims=True) / 127
    rounded = (np.rint(groups / np.where(step, step, 1)) * step).reshape(padded.shape)[:, : x.shape[1]]
    return np.asarray(healthy(w, np.ascontiguousarray(rounded, x.dtype)))


def twice_rounded(healthy: Any, hp: Hparams, w: Matrix, x: F) -> F:
    """The product with a matrix that was quantized once more, to four bits."""
    if w.type in (Q.F32, Q.F16, Q.BF16):
        return np.asarray(healthy(w, x))
    step = max(1, (1 << 22) // w.shape[1])
    parts = (in_four_bits(dequantize(w.type, w.rows[start : start + step])) for start in range(0, w.shape[0], step))
    return np.concatenate([x @ part.T.astype(x.dtype) for part in parts], axis=1)


def short_channel(x: F, at: At) -> F:
    """The largest number of each token a tenth too small."""
    out, rows = x.copy(), np.arange(len(x))
    largest = np.abs(x).argmax(axis=1)
    out[rows, largest] *= 0.9
    return out


def of_type(kind: Q, change: Any, **words: Any) -> Fault:
    """A fault of one tensor type."""
    return new(change=repacked({kind: change}), types=(kind.name,), right=f"refmodel.quants.{kind.name.lower()}:integers", **words)


FAULTS: list[Fault] = [
    of_type(
        Q.Q4_K,
        late_scales,
        id="F64",
        name="q4-k-late-scales",
        says="The scales and minima of the last two groups of a Q4_K block lose their high bits.",
        evidence="aprender #2141",
        fix="from group 4 on the two high bits are those of the bytes four and eight places before",
    ),
    of_type(
        Q.Q5_K,
        fifth_bits,
        id="F65",
        name="q5-k-fifth-bits",
        says="The fifth bits of a Q5_K block go to the neighbouring group.",
        evidence="aprender #2127, candle #1569",
        fix="bit j of qh[i] belongs to number i of group j",
    ),
    of_type(
        Q.Q3_K,
        third_bits,
        id="F66",
        name="q3-k-third-bits",
        says="The third bits of a Q3_K block count the other way.",
        evidence="aprender #2115",
        fix="4 is taken from a code whose bit in hmask is not set",
    ),
    of_type(
        Q.Q2_K,
        scale_nibbles,
        id="F66",
        name="q2-k-nibbles",
        says="The scales and the minima of a Q2_K block are exchanged.",
        evidence="aprender #1924",
        fix="the low half of a byte is the scale, the high half the minimum",
    ),
    of_type(
        Q.Q4_1,
        no_minimum,
        id="F67",
        name="q4-1-minimum-missing",
        says="The minimum of a Q4_1 block is not added.",
        evidence="gguf-tools #9",
        fix="a weight is d times its code, plus m",
    ),
    of_type(
        Q.Q4_0,
        signed_codes,
        id="F67",
        name="q4-0-signed",
        says="The codes of a Q4_0 block are read as signed 4-bit numbers.",
        evidence="1bit-MONSTER #2316",
        fix="a code is a number from 0 to 15, from which 8 is taken",
    ),
    new(
        id="F68",
        name="block-scales-ignored",
        says="All blocks of a row use the scale of its first one.",
        evidence="defenseclaw #679, 1bit-MONSTER #488",
        fix="read the scale of every block",
        right="refmodel.quants.integers:plain",
        change=repacked(dict.fromkeys(HALVES, no_scales)),
        types=tuple(kind.name for kind in HALVES),
    ),
    new(
        id="F68",
        name="last-block-lost",
        says="The last block of each row is not read.",
        evidence="aprender #370, 1bit-MONSTER #488",
        fix="a row has columns / weights-per-block blocks; rows do not share one",
        right="refmodel.ops.linear:linear",
        change=repacked(dict.fromkeys(QUANTS, last_block_lost)),
        types=tuple(kind.name for kind in QUANTS),
    ),
    new(
        id="F69",
        name="gates-in-four-bits",
        says="ssm_alpha and ssm_beta are quantized to four bits, and states drift.",
        evidence="llama.cpp-tq3 #75",
        fix="keep ssm_alpha and ssm_beta in Q8_0 or floats",
        right="refmodel.arch.qwen35:delta_net",
        at=("alpha", "beta raw"),
        change=taps({"alpha": coarse("alpha"), "beta raw": coarse("beta")}, ("input norm",), has_gates),
        tensors=("ssm_alpha.weight", "ssm_beta.weight"),
    ),
    new(
        id="F71",
        name="quantized-twice",
        says="Packed matrices were dequantized and packed again in four bits.",
        evidence="hipfire #634",
        fix="convert from the original weights, not from a quantized file",
        right="refmodel.ops.linear:linear",
        change=operation("linear", twice_rounded, lambda model: any(w.type not in FLOATS for w in model.weights.values())),
        types=tuple(kind.name for kind in QUANTS),
    ),
    new(
        id="F73",
        name="activations-in-eight-bits",
        says="Activations are rounded to 8 bits before every product, as some engines do; a comparison takes that for a fault.",
        evidence="ferrox #108, ferrox #227, aprender #3032",
        fix="compare with numerics that round alike: fast, or llamacpp for llama.cpp",
        right="refmodel.numerics.reference:linear",
        change=operation("linear", coarse_activations),
    ),
    new(
        id="F77",
        name="massive-channel-short",
        says="The largest channel of the feed-forward part's output is a tenth too small.",
        evidence="aprender #2091",
        fix="choose the range of a fixed-point product from its largest channel, on texts with a first token",
        right="refmodel.ops.linear:linear",
        at=("ffn down",),
        change=taps({"ffn down": short_channel}),
        tensors=("ffn_down.weight",),
    ),
]
