"""The tensor types by number: those of the gguf package, those that only llama.cpp knows, and those that are no more.

Source: ggml.h of llama.cpp 0c1e570.
"""

from enum import IntEnum
from typing import cast

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType


class Newer(IntEnum):
    """Types of llama.cpp that the gguf package, or an older version of it, does not know: name and number in files."""

    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


SIZES: dict[int, tuple[int, int]] = {  # weights and bytes of a block
    **{int(kind): size for kind, size in GGML_QUANT_SIZES.items()},
    int(GGMLQuantizationType.Q8_1): (32, 36),  # d and the sum are half floats; the gguf package counts four bytes each
    Newer.NVFP4: (64, 36),
    Newer.Q1_0: (128, 18),
    Newer.Q2_0: (64, 18),
}
REPACKED = "{0} with its rows interleaved, which llama.cpp took out of files; convert the model again as {0}"
GONE = {
    4: "Q4_2, which llama.cpp removed in 2023; convert the model again",
    5: "Q4_3, which llama.cpp removed in 2023; convert the model again",
    **dict.fromkeys((31, 32, 33), REPACKED.format("Q4_0")),
    **dict.fromkeys((36, 37, 38), REPACKED.format("IQ4_NL")),
}
LAST = max(Newer)  # the highest number in llama.cpp's own table


def tensor_type(number: int) -> GGMLQuantizationType | None:
    """The type with that number in files; None if there is none.

    What the gguf package lacks is a Newer, alike in name and number.
    """
    if number in GGMLQuantizationType.__members__.values():
        return GGMLQuantizationType(number)
    return cast(GGMLQuantizationType, Newer(number)) if number in Newer.__members__.values() else None


def missing(number: int) -> str:
    """What a number means that is no type, and what to do; the end of a message."""
    if number in GONE:
        return GONE[number]
    if number <= LAST:
        return "a number that no release of llama.cpp gave away; the file is damaged: get it again"
    return (
        f"beyond llama.cpp 0c1e570, whose last is {LAST}: of a newer llama.cpp, or of a fork such as ik_llama.cpp, whose own types "
        "(IQ4_K, IQ2_KS and others) no other program reads; convert the model again with llama.cpp"
    )
