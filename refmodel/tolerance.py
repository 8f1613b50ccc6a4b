"""The one table of allowed differences, a reason beside every number. NMSE is Σ(a−b)² / Σb²."""

from dataclasses import dataclass

from gguf import GGMLQuantizationType

FLOATS = {GGMLQuantizationType.F32}


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
HALF_CACHE = Tolerance(
    tensors=1e-5,
    logits=1e-6,
    reason="llama.cpp keeps keys and values (and, in flash attention, the sum of values) in float16: steps of 2^-11",
)
QUANTIZED = Tolerance(
    tensors=4e-2,
    logits=2e-2,
    reason="llama.cpp rounds activations to 8 bits before every product with a quantized matrix; these are twice the most by which "
    "its own runs on a trained file (SmolLM2, Q4_1) and on the dequantized copy differ, 1.7e-2 in an intermediate of one token and "
    "8.8e-3 in the logits; `--dequantized` removes this noise",
)


EMULATED = Tolerance(
    tensors=1e-7,
    logits=1e-7,
    reason="numerics llamacpp computes what llama.cpp computes: no bit differs beside the same C library; another one's exp, log, "
    "sin and cos differ in the last place, which can flip an 8-bit code of an activation",
)


def tolerance_for(numerics: str, types: set[GGMLQuantizationType], exact_cache: bool, n_blocks: int) -> Tolerance:
    """The row of the table for our numerics, the types of the file's matrices, and how llama.cpp keeps its cache."""
    if numerics.startswith("llamacpp"):
        return EMULATED
    if types - FLOATS:
        return QUANTIZED
    if not exact_cache:
        return HALF_CACHE.deeper(n_blocks)
    return {"oracle": ORACLE_FLOATS}.get(numerics, SAME_FLOATS).deeper(n_blocks)
