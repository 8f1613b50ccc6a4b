"""What a llama.cpp chooses: by which path it multiplies a matrix, and in which order it adds floats. Nothing is computed here."""

from collections.abc import Callable

from gguf import GGMLQuantizationType as Q

from ..arrays import F32, Matrix
from ..errors import TensorError
from ..llamacpp.builds import AVX2, JUDGE, Build
from ..llamacpp.profile import DEFAULT, Profile
from ..ops.attention import as_it_is
from ..ops.ggml_floats import FLOAT_PATHS
from ..ops.ggml_paths import PATHS, Step, plan, plan_of_expert
from ..ops.ieee import bfloat, half
from ..ops.rope import Rope
from ..quants import FLOATS, q8_0

ROUNDED: dict[Q, Callable[[F32], F32]] = {Q.F32: as_it_is, Q.F16: half, Q.BF16: bfloat}  # what activations become for floats
UNROUNDED = {"dot_amx"}  # orders whose activations stay what they are
ROUNDED_PLAINLY = {"q8_0", "q8_1"}  # partners; the third has one version for all processors
NOT_FUSED = {"alternating_lanes": "alternating_lanes_rounded"}


def rounding(kind: Q, how: str) -> Callable[[F32], F32]:
    """What activations become for a matrix of floats that is multiplied in an order of that name."""
    return as_it_is if how in UNROUNDED else ROUNDED[kind]


def tokens(build: Build, kind: Q, x: F32) -> F32:
    """What the tokens x [T, I] of a product with a packed type are to be, so that rounding them gives that build's codes."""
    return q8_0.plainly(x) if build.instructions.plainly and PATHS[kind].partner in ROUNDED_PLAINLY else x


def name(profile: Profile, build: Build) -> str:
    """The name of a numerics: `llamacpp`, `llamacpp:exact`, `llamacpp:fa=off,build=0ad4a86,cpu=zen4`; policy_of reads it."""
    options = [profile.name] * (profile != DEFAULT) + [f"build={build.commit}"] * (build.commit != JUDGE.commit)
    options += [f"cpu={build.instructions.name}"] * (build.instructions != AVX2)
    return ":".join(["llamacpp", *[",".join(options)] * bool(options)])


def steps(profile: Profile, build: Build, w: Matrix, T: int) -> list[Step]:
    """The paths of a product of a packed w [O, I] with T tokens. TensorError for a type without a known path.

    Source: ggml_compute_forward_mul_mat.
    """
    repacked, tiled, panels, amx = paths_of(profile, build)
    return as_compiled(build, plan(*sizes(w, T), repacked, tiled, panels, amx))


def steps_of_expert(profile: Profile, build: Build, w: Matrix, T: int) -> list[Step]:
    """`steps` for one expert of many, which takes other paths. Source: ggml_compute_forward_mul_mat_id."""
    repacked, tiled, panels, _ = paths_of(profile, build)
    return as_compiled(build, plan_of_expert(*sizes(w, T), repacked, tiled, panels))


def as_compiled(build: Build, planned: list[Step]) -> list[Step]:
    """The steps, by the paths that the build's compiler made of them."""
    return planned if build.fuses_block else [Step(step.tokens, NOT_FUSED.get(step.path, step.path)) for step in planned]


def sizes(w: Matrix, T: int) -> tuple[Q, int, int]:
    """(type, O, T) of a product of w [O, I] with T tokens. TensorError for a type without a known path."""
    if w.type not in PATHS:
        known = ", ".join(kind.name for kind in (*FLOATS, *PATHS))
        raise TensorError(
            f"{w.name}: how llama.cpp multiplies {w.type.name} is not known here; numerics llamacpp has {known}. "
            "Take --numerics reference, or --dequantized"
        )
    return w.type, w.shape[0], T


def paths_of(profile: Profile, build: Build) -> tuple[frozenset[str], bool, bool, frozenset[str]]:
    """The types that are repacked, whether products are tiled, whether IQ4_XS has panels, and the types that go to AMX."""
    repacked, amx = (build.instructions.repacked, build.instructions.amx) if profile.repack else (frozenset[str](),) * 2
    return repacked, profile.tiled and build.tiles, build.panels_of_iq4, amx


def order(profile: Profile, build: Build, w: Matrix, T: int, alone: bool) -> str:
    """In which order (a key of ops.ggml_floats.ORDERS) a matrix of floats w [O, I] is multiplied with T tokens.

    alone  whether it is a matrix by itself; an expert of many goes neither to AMX nor to sgemm

    AMX needs rows in thirty-twos, of whole registers; sgemm several tokens, rows in fours, of whole registers.
    Source: supports_op in amx.cpp, llamafile_sgemm, ggml_compute_forward_mul_mat.
    """
    (O, I), paths = w.shape, FLOAT_PATHS[w.type, build.instructions.floats]
    if alone and w.type.name in paths_of(profile, build)[3] and O % 32 == 0 and I % 16 == 0:
        return "dot_amx"
    whole = I % paths.whole == 0 or (build.pads_rows and w.type == Q.F32)
    return paths.sgemm if alone and T > 1 and O % 4 == 0 and whole else paths.alone


def pairs_at_once(build: Build, how: Rope) -> int:
    """The pairs that are rotated in one register; pairs that are left over are rounded twice."""
    return build.instructions.lanes // 4 if how.adjacent and not build.fuses_left_over else 1
