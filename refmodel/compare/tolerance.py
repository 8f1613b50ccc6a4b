"""The one table of allowed differences, a reason beside every number. NMSE is Σ(a−b)² / Σb²."""

from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

from ..forward.numerics import Numerics

FLOATS = {GGMLQuantizationType.F32}
# Taps of one number a token, a sum of products that may come out near zero: then its rounding, which no other number averages,
# is a hundred times larger beside it.
SINGLE = {"shared_expert_gate"}


@dataclass(frozen=True)
class Tolerance:
    """What is allowed between one of our numerics and a recorded run.

    tensors  largest NMSE of any intermediate
    logits   largest NMSE of the logits
    reason   why these numbers
    """

    tensors: float
    logits: float
    reason: str

    def of(self, name: str) -> float:
        """The bound for a tap, whichever call and position it belongs to."""
        name = name.removeprefix("mtp_")
        if name.partition("-")[0] in SINGLE:
            return 1e4 * self.tensors
        return self.logits if name.partition("@")[0] == "result_output" else self.tensors

    def deeper(self, n_blocks: int) -> "Tolerance":
        """The same for a deeper route: beyond 8 blocks the bounds grow in proportion, as rounding accumulates by block."""
        factor = max(1.0, n_blocks / 8)
        return Tolerance(self.tensors * factor, self.logits * factor, self.reason)


SAME_FLOATS = Tolerance(
    tensors=1e-10,
    logits=1e-10,
    reason="both sides compute float32 products of the same float32 weights; only the order of sums differs",
)
ORACLE_FLOATS = Tolerance(
    tensors=1e-10,
    logits=1e-11,
    reason="float64 beside llama.cpp's float32: what is left is llama.cpp's own rounding, 1e-13 to 1e-12 by block",
)
LOOKED_UP = Tolerance(
    tensors=1e-6,
    logits=1e-6,
    reason="llama.cpp reads GELU from a table of half floats, 1e-4 beside the truth; numerics llamacpp reads the same table",
)
HALF_CACHE = Tolerance(
    tensors=1e-5,
    logits=1e-6,
    reason="keys and values (in flash attention of llama.cpp also their sum) are kept in float16 on one side: steps of 2^-11",
)
QUANTIZED = Tolerance(
    tensors=4e-2,
    logits=2.1e-2,
    reason="llama.cpp rounds activations to 8 bits before every product with a quantized matrix; these are twice the most by which "
    "its own runs on a trained file (SmolLM2, Q4_1) and on the dequantized copy differ, 1.7e-2 in an intermediate of one token and "
    "1.05e-2 in the logits; numerics llamacpp rounds as it does, and `--dequantized` keeps it from rounding",
)


EMULATED = Tolerance(
    tensors=1e-7,
    logits=1e-7,
    reason="numerics llamacpp computes what llama.cpp computes: no bit differs beside the same C library; another one's exp, log, "
    "sin and cos differ in the last place, which can flip an 8-bit code of an activation",
)


EMULATED_ALONE = Tolerance(
    tensors=1e-12,
    logits=1e-12,
    reason="each operation starts from llama.cpp's own numbers, so no difference grows: no bit differs beside the same C library, "
    "and a last place of exp, log, sin and cos (NMSE 1e-14) beside another",
)


@dataclass(frozen=True)
class Noise:
    """A measured noise floor: the largest NMSE between numerics `reference` and llama.cpp 0c1e57098 when nothing is wrong."""

    tensors: float
    logits: float


# (quantization, profile) -> noise of a prompt and two single tokens: of golden's models of all architectures, and of 60 tokens of
# English in the trained SmolLM2, whose outliers make blocks of 32 coarser (Q4_1). What makes it: 8-bit activations; for F32 the
# half-precision cache (default) or the order of float32 sums alone (exact). Numerics llamacpp has none of it, no bit differs.
NOISE = {
    ("F32", "exact"): Noise(4.5e-12, 4.8e-13),
    ("F32", "default"): Noise(2.1e-06, 4.2e-07),
    ("Q4_K_M", "exact"): Noise(2.4e-03, 5.9e-04),
    ("Q4_K_M", "default"): Noise(2.4e-03, 5.9e-04),
    ("Q5_K_M", "exact"): Noise(3.0e-03, 6.4e-04),
    ("Q5_K_M", "default"): Noise(2.6e-03, 6.5e-04),
    ("Q6_K", "exact"): Noise(4.9e-03, 6.2e-04),
    ("Q6_K", "default"): Noise(4.5e-03, 6.3e-04),
    ("Q8_0", "exact"): Noise(1.0e-03, 2.7e-04),
    ("Q8_0", "default"): Noise(1.1e-03, 2.6e-04),
    ("Q4_1", "exact"): Noise(1.4e-02, 8.6e-03),
    ("Q4_1", "default"): Noise(1.3e-02, 1.0e-02),
}


def tolerance_for(
    num: Numerics, types: set[GGMLQuantizationType], exact_cache: bool, n_blocks: int, anchor: str = "", gelu_table: bool = False
) -> Tolerance:
    """The row of the table for our numerics, the types of the file's matrices, llama.cpp's cache, and what the pass starts from.

    gelu_table  whether llama.cpp reads the GELU of this architecture from a table, arch.FACTS.gelu_table
    """
    if num.emulates:
        return EMULATED_ALONE if anchor == "node" else EMULATED
    if types - FLOATS:
        return QUANTIZED
    if not exact_cache:
        return HALF_CACHE.deeper(n_blocks)
    if gelu_table:
        return LOOKED_UP.deeper(n_blocks)
    return (ORACLE_FLOATS if num.dtype is np.float64 else SAME_FLOATS).deeper(n_blocks)
