"""The architectures: general.architecture -> the module that computes it."""

from typing import Any, Protocol

from ..arrays import DType, F, Matrix
from ..forward.call import Call
from ..forward.state import State
from ..forward.weights import Block, Weight
from ..gguf.metadata import Metadata
from . import gemma3, llama, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe

Shape = tuple[int, ...]


class Architecture(Protocol):
    """What a module in this folder provides.

    BIASED         the matrices of a block whose product may have a bias in the file, as llama.cpp lets it
    SCALED         the matrices of a block that may have a `.scale` beside them, as llama.cpp multiplies by it
    FUSED          the tensors that hold several matrices of a block in some files, names of fused.PARTS
    hparams        metadata and the values of rope_freqs.weight (or none) -> Hparams; MetadataError names what is missing.
                   n_layer are the trunk's blocks, those a route may name, n_nextn the prediction blocks behind them
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

    def hparams(self, md: Metadata, rope_freqs: tuple[float, ...]) -> Any: ...
    def globals(self, hp: Any, n_vocab: int) -> tuple[dict[str, Shape], dict[str, Shape]]: ...
    def shapes(self, hp: Any, index: int) -> dict[str, Shape]: ...
    def kind(self, hp: Any, index: int) -> str: ...
    def new_state(self, hp: Any, index: int, dtype: DType) -> State: ...
    def embed(self, x: F, c: Call) -> F: ...
    def block(self, x: F, w: Block, s: Any, c: Call) -> F: ...
    def final_norm(self, x: F, output_norm: Weight, c: Call) -> F: ...
    def head(self, h: F, output: Matrix, c: Call) -> F: ...


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
