"""Our side: the places where the benchmarks touch refmodel's numerics and kernels: a change there is one here alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from refmodel.arrays import F32
from refmodel.forward.weights import Weight
from refmodel.gguf.tensor import Tensor
from refmodel.kernels.floats.dequantize import KINDS
from refmodel.kernels.floats.dequantize import dequantize as decode
from refmodel.model.model import Model
from refmodel.numerics import Numerics, numerics_of
from refmodel.quants import dequantize as by_numpy
from refmodel.text.generate import generate

from .arrays import aligned, zeros
from .synthesize import DISTINCT, packed


def numerics(name: str, threads: int) -> Numerics:
    """The policy of that name; llamacpp is as llama.cpp runs with that many threads."""
    return numerics_of(f"llamacpp:threads={threads}" if name == "llamacpp" else name)


def weight(kind: GGMLQuantizationType, rows: int, columns: int, seed: int = 0) -> Weight:
    """A random packed matrix [rows, columns], read-only as a file's are."""
    few = packed(kind, DISTINCT, columns, seed)
    data = aligned(np.resize(few, (rows, few.shape[1])).reshape(-1))
    data.setflags(write=False)
    return Weight(Tensor("w", kind, (rows, columns), Path(), data))


def row_bytes(kind: GGMLQuantizationType, columns: int) -> int:
    """The bytes of a packed row."""
    weights, size = GGML_QUANT_SIZES[kind]
    return columns // weights * size


def linear(num: Numerics, w: Weight, x: F32) -> Callable[[], Any]:
    """A turn of w [O, I] times the tokens x [T, I]."""
    return lambda: num.linear(w, x)


def delta_rule(num: Numerics, q: F32, k: F32, v: F32, log_decay: F32, beta: F32, state: F32) -> Callable[[], Any]:
    """A turn of the gated delta rule; it overwrites the state, as a session does. Shapes as in ops.deltanet.gated_delta_rule."""
    return lambda: num.gated_delta_rule(q, k, v, log_decay, beta, state, state)


def dequantize(w: Weight) -> tuple[Callable[[], Any], str]:
    """A turn of decoding a whole matrix into memory that exists already, and a word for what decodes it."""
    out = zeros(w.shape, np.float32)
    if w.type.name in KINDS:
        return (lambda: decode(w.type.name, w.rows, out)), ""
    return (lambda: by_numpy(w.type, w.rows)), "decoded by NumPy: no kernel"


def reading(loaded: Model, num: Numerics, tokens: Sequence[int], route: str = "") -> Callable[[], Any]:
    """A turn of reading a prompt in a new sequence, with the logits of its last token."""
    return lambda: loaded.session(route or None, num).forward(tokens, "last")


def first_token(loaded: Model, num: Numerics, tokens: Sequence[int], route: str = "") -> Callable[[], Any]:
    """A turn of reading a prompt as `refmodel run` does, piece by piece, and choosing the next token."""
    return lambda: next(generate(loaded.session(route or None, num), tokens, 1))


def decoding(loaded: Model, num: Numerics, before: Sequence[int], after: Sequence[int]) -> Callable[[], Any]:
    """A turn of feeding the tokens `after`, one at a time, in a sequence that begins with `before`."""
    session = loaded.session(None, num)
    session.forward(before, "last")
    return lambda: [session.forward([token], "last") for token in after]
