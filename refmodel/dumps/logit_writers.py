"""Logits in the formats that llama.cpp's own tools compare with: refmodel as the base of their comparison.

`kld_base` is what llama-perplexity writes with --kl-divergence-base and reads with --kl-divergence; see kld_base.py for its layout.
`results` is what llama-results writes, and checks with --check; see results_gguf.py.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ..arrays import F32, Bytes, F
from ..errors import DumpError
from ..gguf.writer import field
from ..gguf.writer import write as write_gguf
from ..machine.files import whole
from .kld_base import MAGIC

DEEPEST, CODES = np.float32(16), np.float32(65535)  # logits that far below the largest have code 0; the largest code


def write_kld_base(path: Path, chunks: Sequence[Sequence[int]], n_vocab: int, logits: Iterable[F]) -> None:
    """Write a base for `llama-perplexity --kl-divergence`.

    chunks  the token ids of each chunk, all of one length n_ctx, as they are in the text: without BOS
    logits  for each chunk in turn those of its tokens n_ctx/2 to n_ctx - 2, [n_ctx - 1 - n_ctx/2, V]

    DumpError for chunks of different lengths, or logits of another shape.
    """
    lengths = {len(chunk) for chunk in chunks}
    if len(lengths) != 1 or min(lengths, default=0) < 4:
        raise DumpError(f"{path}: needs chunks of one length, at least 4 tokens; these have {sorted(lengths)}")
    (n_ctx,) = lengths
    shape = n_ctx - 1 - n_ctx // 2, n_vocab
    with whole([path]) as (out,):
        out.write(MAGIC + struct.pack("<Iii", n_ctx, n_vocab, len(chunks)) + np.array(chunks, "<i4").tobytes())
        for rows in logits:
            if rows.shape != shape:
                raise DumpError(f"{path}: logits of a chunk are {list(shape)}; these are {list(rows.shape)}")
            out.write(coded(rows.astype(np.float32)).tobytes())


def coded(logits: F32) -> Bytes:
    """Logits [k, V] as log-probabilities in 16-bit codes: of each row its scale and least as float32, then the codes, as bytes.

    The arithmetic is float32 but for the sum of e^x, as in log_softmax of llama.cpp's tools/perplexity/perplexity.cpp.
    """
    top = logits.max(axis=1, keepdims=True)
    low = np.maximum(logits.min(axis=1, keepdims=True), top - DEEPEST)
    total = np.log(np.exp((logits - top).astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32)
    scale, least = (top - low) / CODES, low - top - total
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    codes = np.rint(inverse * np.maximum(logits - low, 0))  # halves to even
    padded = np.zeros((len(logits), 2 * ((logits.shape[1] + 1) // 2)), "<u2")
    padded[:, : logits.shape[1]] = codes
    head = np.concatenate([scale, least], axis=1).astype("<f4")
    return np.concatenate([head.view(np.uint8), padded.view(np.uint8)], axis=1)


@dataclass(frozen=True)
class Array:
    """One tensor of a results file: its name, type, shape in NumPy's order, and bytes."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: Bytes


def write_results(path: Path, model: str, tokens: Sequence[int], logits: F) -> None:
    """Write a file for `llama-results --check`.

    model   the model's path, as llama-results will be given it: it compares the text
    logits  [T, V] of the tokens

    DumpError if the logits are not those of as many tokens.
    """
    if logits.ndim != 2 or len(logits) != len(tokens):
        raise DumpError(f"{path}: {len(tokens)} tokens need logits of {len(tokens)} rows; these are {list(logits.shape)}")
    ids = np.array(tokens, "<i4")
    rows = np.ascontiguousarray(logits, "<f4")
    arrays = [
        Array("tokens", GGMLQuantizationType.I32, (len(tokens),), ids.view(np.uint8)),
        Array(
            "logits", GGMLQuantizationType.F32, (rows.shape[1], len(rows)), rows.reshape(-1).view(np.uint8)
        ),  # exchanged, as there
    ]
    write_gguf(path, {"path_model": field(GGUFValueType.STRING, model)}, arrays)
