"""The architectures: general.architecture -> the module that computes it."""

from typing import Any, Protocol

from ..arrays import DType, F
from ..forward.call import Call
from ..forward.state import State
from ..forward.weights import Block, Output, Weight
from . import gemma3, llama, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe
from .facts import Facts
from .hparams import Hparams
from .metadata import Keys
from .shapes import Shape, Shapes


class Architecture(Protocol):
    """What a module in this folder provides.

    BIASED         the matrices of a block whose product may have a bias in the file, as llama.cpp lets it
    SCALED         the matrices of a block that may have a `.scale`, as llama.cpp multiplies by it
    FUSED          the tensors that hold several matrices of a block in some files, names of fused.PARTS
    FACTS          what tools want to know besides
    hparams        metadata -> Hparams; MetadataError names what is missing or wrong
    globals        Hparams, V -> the required and the optional tensors outside of blocks, with their shapes
    shapes         Hparams, block -> the tensors of a block, without blk.N., with their shapes
    kind           Hparams, block -> a word for the kind of a block
    new_state      what a position with this block remembers before the first token
    embed          embedded tokens [T, E] as the first block wants them
    block          x [T, E] -> [T, E]
    final_norm     x [T, E] of the last block -> what the head reads, [T, E]
    head           that -> logits [T, V]
    """

    BIASED: tuple[str, ...]
    SCALED: tuple[str, ...]
    FUSED: tuple[str, ...]
    FACTS: Facts

    def hparams(self, k: Keys) -> Hparams: ...
    def globals(self, hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]: ...
    def shapes(self, hp: Hparams, index: int) -> Shapes: ...
    def kind(self, hp: Hparams, index: int) -> str: ...
    def new_state(self, hp: Hparams, index: int, dtype: DType) -> State: ...
    def embed(self, x: F, c: Call) -> F: ...
    def block(self, x: F, w: Block, s: Any, c: Call) -> F: ...
    def final_norm(self, x: F, output_norm: Weight, c: Call) -> F: ...
    def head(self, h: F, output: Output, c: Call) -> F: ...


ARCHITECTURES: dict[str, Architecture] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3moe,
    "qwen35": qwen35,
    "qwen35moe": qwen35moe,
    "qwen3next": qwen3next,
    "gemma3": gemma3,
}
# Those that llama.cpp runs only with blocks of two kinds
HYBRID = {name for name, arch in ARCHITECTURES.items() if arch.FACTS.kinds and arch.FACTS.kinds.both}

__all__ = ["ARCHITECTURES", "HYBRID", "Architecture", "Hparams", "Keys", "Shape", "Shapes"]
