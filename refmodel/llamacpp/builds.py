"""The builds of llama.cpp whose arithmetic is known, and the processors that their kernels are compiled for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Instructions:
    """What kernels compute differently that are compiled for some kind of x86-64 processor: facts about sums, not about speed.

    name      of the first that has them, as llama.cpp calls it when it builds kernels for several kinds
    features  that such a build reports about itself, of those that change bits
    lanes     floats of a register: this many are summed side by side, and are one argument of its e^x
    floats    the kind in ops.ggml_floats.FLOAT_PATHS that multiplies matrices of floats
    repacked  quantized types that are rearranged for faster kernels
    amx       types whose products AMX's kernels take, if rows are a multiple of 32
    halves    flash attention row by row: values are added up by instructions for half floats (AVX512-FP16)
    plainly   8-bit activations are rounded by the C version, of Q8_0 and Q8_1
    whole     what it computes is known whole; else it is only the nearest
    """

    name: str
    features: frozenset[str]
    lanes: int = 8
    floats: str = "avx2"
    repacked: frozenset[str] = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
    amx: frozenset[str] = frozenset()
    halves: bool = False
    plainly: bool = False
    whole: bool = True


AVX2 = Instructions("avx2", frozenset({"AVX", "AVX2"}))
AVX = Instructions("sandybridge", frozenset({"AVX"}), repacked=frozenset(), whole=False)
SSE = Instructions("x64", frozenset(), repacked=frozenset(), plainly=True, whole=False)
SKYLAKEX = Instructions("skylakex", AVX2.features | {"AVX512"}, 16, "avx512", AVX2.repacked | {"Q2_K"})
ZEN4 = replace(SKYLAKEX, name="zen4", features=SKYLAKEX.features | {"AVX512_BF16"}, floats="avx512bf16")
ZEN4_FP16 = replace(ZEN4, name="zen4-fp16", halves=True)  # a library does not report AVX512-FP16: what it computes shows it
SAPPHIRERAPIDS = replace(
    ZEN4,
    name="sapphirerapids",
    features=ZEN4.features | {"AMX_INT8"},
    amx=frozenset({"F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}),
)
SAPPHIRERAPIDS_FP16 = replace(SAPPHIRERAPIDS, name="sapphirerapids-fp16", halves=True)
INSTRUCTIONS = {which.name: which for which in (AVX2, SKYLAKEX, ZEN4, SAPPHIRERAPIDS, SAPPHIRERAPIDS_FP16, ZEN4_FP16, AVX, SSE)}
AMX = frozenset({"AMX_INT8"})
FEATURES = AVX2.features | {"AVX512", "AVX512_BF16"} | AMX  # that are looked at

# all kinds of processors that llama.cpp builds kernels for, and whose arithmetic is known
KINDS = {
    "haswell": AVX2,
    "skylakex": SKYLAKEX,
    "cannonlake": SKYLAKEX,
    "cascadelake": SKYLAKEX,
    "icelake": SKYLAKEX,
    "cooperlake": ZEN4,
    "zen4": ZEN4,
    "sapphirerapids": SAPPHIRERAPIDS,
}


@dataclass(frozen=True)
class Build:
    """What the kernels of one build compute differently.

    commit           of llama.cpp, seven digits
    tiles            has tiled products
    panels_of_iq4    has a path of its own for 8 and more tokens with IQ4_XS and a multiple of 8 rows
    fused_sum        flash attention, one row: the sum of weights takes a product by fma, not by two roundings
    attends_by_rows  flash attention goes row by row for any number of tokens, never in tiles
    tiles_any_head   flash attention in tiles also where the size of a head is no whole number of registers
    fuses_left_over  RoPE of neighbours: pairs that do not fill a register are computed as the others are
    pads_rows        sgemm of F32 also for rows that are no multiple of 8
    fuses_block      IQ4_NL and MXFP4, one dot product over an odd number of blocks: the last one is added by fma
    instructions     that its kernels were compiled for
    whole            what it computes is known whole; else other versions may be near to it
    """

    commit: str
    tiles: bool = True
    panels_of_iq4: bool = False
    fused_sum: bool = True
    attends_by_rows: bool = False
    tiles_any_head: bool = True
    fuses_left_over: bool = False
    pads_rows: bool = False
    fuses_block: bool = True
    instructions: Instructions = AVX2
    whole: bool = True


JUDGE = Build("0c1e570")  # llama-cpp-python 0.3.36, of which golden/ speaks
BUILDS = {
    build.commit: build
    for build in (
        JUDGE,
        Build("0ce8cd1", pads_rows=True),  # b11739
        Build(  # node-llama-cpp 3.22.1
            "0ad4a86", tiles=False, panels_of_iq4=True, fused_sum=False, tiles_any_head=False, fuses_left_over=True
        ),
        Build("02805ee", tiles=False, fused_sum=False, attends_by_rows=True, fuses_left_over=True, whole=False),  # b6673
    )
}


# what the compiler made otherwise of the same source for some processors
COMPILED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    (JUDGE.commit, which.name): {"fuses_block": False} for which in (SKYLAKEX, ZEN4)
}


def compiled_for(build: Build, instructions: Instructions) -> Build:
    """The same build with kernels that were compiled for other processors."""
    return replace(build, instructions=instructions, **COMPILED.get((build.commit, instructions.name), {}))


def builds_of(reported: Mapping[str, str]) -> list[Build]:
    """The known builds that a library may be that reports a commit and the features that its kernels use, the likeliest first.

    There may be several, because a library does not report all that matters: AVX512-FP16, and whether AMX, which it was compiled
    for, may be used where it runs. A trace of earlier versions reports no features: it was recorded with kernels for AVX2, as no
    others were known.
    """
    features = frozenset(reported.get("features", "AVX AVX2").split()) & FEATURES
    build, known = BUILDS.get(reported["commit"][:7]), [which for which in INSTRUCTIONS.values() if which.whole]
    chosen = [which for which in known if which.features == features]
    denied = [which for which in known if which.features | AMX == features and which not in chosen]
    return [compiled_for(build, which) for which in (*chosen, *denied)] if build and build.whole else []
