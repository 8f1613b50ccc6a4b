"""Which way llama.cpp multiplies a packed matrix: the names of functions in ggml_product, and of kernels.

Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu: ggml-cpu.c, arch/x86/repack.cpp, amx/amx.cpp.
"""

from collections.abc import Collection
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Q

from ..quants import q8_0, q8_1, q8_k


@dataclass(frozen=True)
class Paths:
    """The names of the paths of one type. Empty: it does not have that path and falls to the next one.

    Which types are repacked, and which go to AMX, also depends on the processor (builds.Instructions).

    partner  what activations become: a key of QUANTIZERS
    vec_dot  row by row, token by token
    gemv     of repacked weights, for the tokens that are left over from groups of four
    gemm     of repacked weights, for groups of four tokens
    tiled    for 8 tokens and more
    sgemm    for 2 tokens and more
    amx      for any number of tokens, of weights that are rearranged for AMX
    """

    partner: str
    vec_dot: str
    gemv: str = ""
    gemm: str = ""
    tiled: str = ""
    sgemm: str = ""
    amx: str = ""


MINIMA = "whole_super_blocks_and_minima"
PATHS = {
    Q.Q8_0: Paths("q8_0", "eight_lanes", sgemm="eight_lanes", amx="whole_blocks"),
    Q.Q4_0: Paths("q8_0", "eight_lanes", gemv="whole_blocks", gemm="whole_blocks", sgemm="eight_lanes", amx="whole_blocks"),
    Q.Q5_0: Paths("q8_0", "eight_lanes", sgemm="eight_lanes"),
    Q.IQ4_NL: Paths("q8_0", "alternating_lanes", gemv="whole_blocks", gemm="whole_blocks", sgemm="eight_lanes"),
    Q.MXFP4: Paths("q8_0", "alternating_lanes", gemv="whole_blocks", gemm="whole_blocks"),
    Q.Q4_1: Paths("q8_1", "eight_lanes_and_minima", amx="whole_blocks_and_minima"),
    Q.Q5_1: Paths("q8_1", "eight_lanes_and_minima"),
    Q.Q2_K: Paths("q8_k", "lanes_of_q2_k", gemv="sums_of_q4_k", gemm="halves_of_q2_k", tiled="super_blocks"),
    Q.Q3_K: Paths("q8_k", "lanes_of_q3_k", tiled="super_blocks"),
    Q.Q4_K: Paths("q8_k", "lanes_of_q4_k", gemv="sums_of_q4_k", gemm="pairs_of_q4_k", tiled="super_blocks", amx=MINIMA),
    Q.Q5_K: Paths("q8_k", "lanes_of_q5_k", tiled="super_blocks", amx=MINIMA),
    Q.Q6_K: Paths("q8_k", "lanes_of_q6_k", tiled="super_blocks", amx="whole_super_blocks"),
    Q.IQ4_XS: Paths("q8_k", "lanes_of_iq4_xs", tiled="super_blocks", amx="whole_super_blocks"),
}


@dataclass(frozen=True)
class Step:
    """A part of a product: which tokens of the call, and the name of the path that multiplies them."""

    tokens: slice
    path: str


QUANTIZERS = {"q8_0": q8_0.quantize, "q8_1": q8_1.quantize, "q8_k": q8_k.quantize}


def plan(kind: Q, O: int, T: int, repacked: Collection[str], tiled: bool, panels: bool, amx: Collection[str]) -> list[Step]:
    """How llama.cpp multiplies O rows of a quantized type with T tokens.

    repacked  names of the types that are rearranged
    tiled     whether products of 8 tokens and more are
    panels    whether IQ4_XS has a path of its own
    amx       names of the types that are rearranged for AMX

    Source: supports_op in amx.cpp; ggml_repack_get_optimal_repack_type and forward_mul_mat in repack.cpp;
    ggml_compute_forward_mul_mat.
    """
    paths, everything = PATHS[kind], slice(0, T)
    if kind.name in amx and O % 32 == 0:
        return [Step(everything, paths.amx)]
    if kind.name in repacked and O % 8 == 0:
        fours = T // 4 * 4
        steps = Step(slice(0, fours), paths.gemm), Step(slice(fours, T), paths.gemv)
        return [step for step in steps if step.tokens.start < step.tokens.stop]
    if tiled and paths.tiled and T >= 8:
        return [Step(everything, paths.tiled)]
    if panels and kind == Q.IQ4_XS and T >= 8 and O % 8 == 0:
        return [Step(everything, "whole_super_blocks")]
    if paths.sgemm and T >= 2:
        return [Step(everything, paths.sgemm)]
    return [Step(everything, paths.vec_dot)]


def plan_of_expert(kind: Q, O: int, T: int, repacked: Collection[str], tiled: bool, panels: bool) -> list[Step]:
    """The same for T tokens routed to one expert: repacked rows are multiplied with one token at a time, and there is no sgemm.

    Source: forward_mul_mat_id in repack.cpp; ggml_compute_forward_mul_mat_id.
    """
    paths, everything = PATHS[kind], slice(0, T)
    if kind.name in repacked and O % 8 == 0:
        return [Step(everything, paths.gemv)]
    if panels and kind == Q.IQ4_XS and T >= 8 and O % 8 == 0:
        return [Step(everything, "whole_super_blocks")]
    return [Step(everything, paths.tiled if tiled and paths.tiled and T >= 8 else paths.vec_dot)]
