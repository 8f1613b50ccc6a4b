"""The architectures: general.architecture -> the module that computes it."""

from typing import Any, Protocol

from ..arrays import DType, F
from ..forward.call import Call
from ..forward.state import State
from ..forward.weights import Block, Output, Weight
from . import gemma3, lfm2, llama, mistral3, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe
from .facts import Facts
from .hparams import Hparams
from .keys import Keys
from .shapes import Shape, Shapes


class Architecture(Protocol):
    """What a module in this folder provides.

    BIASED  the matrices of a block whose product may have a bias in the file, where llama.cpp allows one
    SCALED  the matrices of a block that may have a `.scale`, where llama.cpp multiplies by it
    FUSED   the tensors that hold several matrices of a block in some files: names of fused.PARTS
    FACTS   what tools need to know besides
    """

    BIASED: tuple[str, ...]
    SCALED: tuple[str, ...]
    FUSED: tuple[str, ...]
    FACTS: Facts

    def hparams(self, k: Keys) -> Hparams:
        """The sizes of a model, from its metadata. MetadataError names a key that is missing or out of its range."""
        ...

    def globals(self, hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
        """The tensors outside of blocks for V = n_vocab tokens, name -> shape: the required ones, and the optional ones."""
        ...

    def shapes(self, hp: Hparams, index: int) -> Shapes:
        """The tensors of block `index`, by their names without `blk.N.`: name -> shape (rows, columns)."""
        ...

    def kind(self, hp: Hparams, index: int) -> str:
        """A word for the kind of block `index`: attention, delta, sliding."""
        ...

    def new_state(self, hp: Hparams, index: int, dtype: DType) -> State:
        """What a position with block `index` remembers before the first token; a recurrent state has that dtype."""
        ...

    def embed(self, x: F, c: Call) -> F:
        """Embedded tokens [T, E] -> [T, E] as the first block reads them."""
        ...

    def block(self, x: F, w: Block, s: Any, c: Call) -> F:
        """One decoder block, [T, E] -> [T, E]. It reads the weights w and updates the position's state s."""
        ...

    def final_norm(self, x: F, output_norm: Weight, c: Call) -> F:
        """The output of the last block, [T, E] -> what the head reads, [T, E]."""
        ...

    def head(self, h: F, output: Output, c: Call) -> F:
        """What the head reads, [T, E] -> logits [T, V]; fewer columns where `output` is some rows of the head."""
        ...


ARCHITECTURES: dict[str, Architecture] = {
    "llama": llama,
    "mistral3": mistral3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3moe,
    "qwen35": qwen35,
    "qwen35moe": qwen35moe,
    "qwen3next": qwen3next,
    "gemma3": gemma3,
    "lfm2": lfm2,
}
# Those that llama.cpp runs only with blocks of two kinds
HYBRID = {name for name, arch in ARCHITECTURES.items() if arch.FACTS.kinds and arch.FACTS.kinds.both}

__all__ = ["ARCHITECTURES", "HYBRID", "Architecture", "Hparams", "Keys", "Shape", "Shapes"]
