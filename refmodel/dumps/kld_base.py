"""llama-perplexity's `--kl-divergence-base`: log-probabilities of the second half of each chunk, as 16-bit codes.

b"_logits_", u32 n_ctx, i32 V, i32 chunks, i32 tokens [chunks, n_ctx]; then for each chunk n_ctx - 1 - n_ctx/2 rows, of tokens
n_ctx/2 on: float32 scale, float32 least, u16 codes [V], one more if V is odd. A log-probability is least + scale · code; what is
16 below the largest or less has code 0. With add_bos the first token of a chunk was replaced by BOS when it ran, not in the file.
Source: llama.cpp tools/perplexity/perplexity.cpp, log_softmax.
"""

from pathlib import Path

import numpy as np

from ..arrays import F
from ..errors import DumpError
from ..forward.taps import in_call
from ..gguf.reader import mapped
from .dump import Dump, Numbers

MAGIC = b"_logits_"


def read_kld_base(path: Path) -> Dump:
    """The log-probabilities, one array for each chunk, `logits@K`; its calls are the chunks, sequences of their own.

    DumpError for a file that is not whole.
    """
    data = mapped(path)
    if data.size < 20:
        raise DumpError(f"{path}: ends in its header; record it again with llama-perplexity --kl-divergence-base")
    n_ctx, V, chunks = (int(n) for n in np.frombuffer(data[8:20], "<i4"))
    rows = n_ctx - 1 - n_ctx // 2
    width = 2 * ((V + 1) // 2) + 4
    start = 20 + 4 * n_ctx * chunks
    needed = start + 2 * chunks * rows * width
    if n_ctx < 2 or V < 1 or chunks < 1 or data.size != needed:
        raise DumpError(
            f"{path}: says {chunks} chunks of {n_ctx} tokens over {V} words, which need {needed} bytes; it has {data.size}; "
            "was llama-perplexity interrupted? Record it again"
        )
    tokens = np.frombuffer(data[20:start], "<i4").reshape(chunks, n_ctx)
    codes = np.frombuffer(data[start:], "<u2").reshape(chunks, rows, width)
    calls = [[int(t) for t in row] for row in tokens]
    arrays = {in_call("logits", k): chunk(codes[k], V, n_ctx // 2) for k in range(chunks)}
    return Dump(path, "a KL-divergence base of llama-perplexity", arrays, calls, {"numerics": "llamacpp"}, apart=True)


def chunk(codes: np.ndarray, V: int, first: int) -> Numbers:
    """The rows of one chunk: codes [rows, 4 + V and a pad], of the tokens from `first` on."""
    floats = np.ascontiguousarray(codes[:, :4]).view("<f4").astype(np.float64)
    scale, least = floats[:, 0], floats[:, 1]

    def read() -> F:
        """The log-probabilities, [rows, V] in float64."""
        return least[:, None] + scale[:, None] * codes[:, 4 : 4 + V]

    rows = np.arange(first, first + len(codes))
    return Numbers((len(codes), V), "F32", read, log=True, least=least, step=0.5 * scale[:, None], rows=rows)
