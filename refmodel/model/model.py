"""A model: a GGUF that passed every check, and its forward pass under any route and numerics."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arch import ARCHITECTURES, Hparams, Keys
from ..arrays import F
from ..errors import MetadataError
from ..forward.taps import Tapper, silent
from ..forward.weights import Block, Weight
from ..gguf.reader import GgufFile, read
from ..quants import dequantize
from ..tokenizer import Tokenizer
from .draft_head import Prediction
from .route import Route
from .session import Session
from .tensors import Tensors

if TYPE_CHECKING:
    from ..forward.numerics import Numerics

RouteLike = Route | str | Sequence[int] | None


class Model:
    """A loaded model. Weights stay packed over the file's mapping; nothing is decoded at loading."""

    def __init__(self, file: GgufFile) -> None:
        self.file, self.path, md = file, file.path, file.metadata
        self.architecture = md.str("general.architecture")
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise MetadataError(
                f"{self.path}: general.architecture is {self.architecture!r}; known are {known}; `refmodel info` needs one "
                "of these, or a converter that makes one"
            )
        self.arch = ARCHITECTURES[self.architecture]
        largest = max((prod(tensor.shape) for tensor in file.tensors.values()), default=0)
        keys = Keys(md, self.architecture, largest, rope_freqs(file))
        self.tensors = Tensors(file, self.architecture, self.arch, self.arch.hparams(keys))

    @property
    def hp(self) -> Hparams:
        """The hyperparameters, as the architecture reads them from the metadata."""
        return self.tensors.hp

    def with_hparams(self, **changes: Any) -> "Model":
        """The same file with some hyperparameters replaced: what a runtime computes that reads them wrongly."""
        other = copy(self)
        other.tensors = copy(self.tensors)
        other.tensors.hp = replace(self.hp, **changes)
        return other

    @property
    def weights(self) -> Mapping[str, Weight]:
        """Tensor name -> its packed weight."""
        return self.tensors.weights

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks of the trunk, by number."""
        return self.tensors.blocks

    @property
    def n_vocab(self) -> int:
        """V, the rows of the embedding."""
        return self.tensors.n_vocab

    @property
    def output(self) -> Weight:
        """The head's matrix: its own, or the tied embedding."""
        return self.tensors.output

    @property
    def prediction(self) -> Prediction:
        """The prediction block (MTP). MetadataError if the file has none, or several."""
        return self.tensors.prediction

    @property
    def n_layer(self) -> int:
        """Blocks of the trunk: those that a route may name."""
        return self.hp.n_layer

    @property
    def kinds(self) -> list[str]:
        """The kind of each block of the trunk, by its number."""
        return [self.arch.kind(self.hp, i) for i in range(self.n_layer)]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer. MetadataError if it is not one that is known here."""
        return Tokenizer.from_metadata(self.file.metadata)

    def route(self, value: RouteLike = None) -> Route:
        """A route of this model from a Route, its text or a list of source blocks. RouteError if it names no such block."""
        return Route.of(value, self.n_layer)

    def session(
        self,
        route: RouteLike = None,
        numerics: "Numerics | str" = "reference",
        tapper: Tapper = silent,
        mtp: bool = False,
        scores: bool = False,
    ) -> Session:
        """A sequence that is fed piece by piece; state is carried from call to call.

        route     a Route, its text, a list of source blocks, or None for the file's own order
        numerics  a policy or its name
        tapper    called as tapper(name, x) with every intermediate; the pass goes on with what it returns
        mtp       run the prediction block too, as a draft head
        scores    show the tapper attention's scores and weights too (kq, kq_soft_max), [H, T, S] each
        """
        from ..numerics import as_stored, numerics_of  # now, so that a file is shown without Numba

        num = numerics_of(numerics)
        stored = self.tensors.has_scales or any(self.tensors.shares.values())
        return Session(self.tensors, self.route(route), as_stored(num) if stored else num, tapper, mtp, scores)

    def forward(
        self,
        tokens: Sequence[int],
        route: RouteLike = None,
        numerics: "Numerics | str" = "reference",
        logits: str = "all",
        tapper: Tapper = silent,
        scores: bool = False,
    ) -> F:
        """The logits of a sequence from its start.

        tokens    T token ids
        route     a Route, its text, a list of source blocks, or None for the file's own order
        numerics  a policy or its name
        logits    "all" -> [T, V]; "last" -> [1, V]
        tapper    called as tapper(name, x) with every intermediate; the pass goes on with what it returns
        scores    show it attention's scores and weights too
        """
        return self.session(route, numerics, tapper, scores=scores).forward(tokens, logits)


def rope_freqs(file: GgufFile) -> tuple[float, ...]:
    """The values of the optional tensor rope_freqs.weight, or none."""
    if "rope_freqs.weight" not in file.tensors:
        return ()
    tensor = file.tensors["rope_freqs.weight"]
    return tuple(map(float, dequantize(tensor.type, tensor.rows).ravel()))


def load(path: str | Path) -> Model:
    """Open a GGUF (or the first part of a split one) and check it whole. Raises FileError, MetadataError, TensorError."""
    return Model(read(path))
