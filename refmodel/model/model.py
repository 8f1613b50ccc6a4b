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
from ..errors import MetadataError, TensorError
from ..forward.taps import Tapper, silent
from ..forward.weights import Block, Weight
from ..gguf.reader import GgufFile, read
from ..hf.checkpoint import opened
from ..notebook import html_of
from ..quants import LAYOUTS, dequantize, not_decoded
from ..tokenizer import Tokenizer
from .batch import Batch
from .draft_file import with_draft
from .draft_head import Prediction
from .exports import as_llama_cpp_names
from .file_kind import refuse_other_kinds
from .route import Route
from .session import Session
from .tensors import Tensors

if TYPE_CHECKING:
    from ..forward.numerics import Numerics

RouteLike = Route | str | Sequence[int] | None


class Model:
    """A loaded model: a checked file or folder, its architecture, and forward passes under any route and numerics.

    Weights stay packed over the file's mapping; nothing is decoded at loading. A model is not changed by its passes, so one model
    serves any number of sessions.

    file          the GGUF, or the folder in the words of one: metadata, tensors, sha256; all under llama.cpp's names
    path          of the file, of a split one the first part
    architecture  general.architecture, for example qwen35
    arch          the module of refmodel.arch that computes it

    `load` makes one from a path. MetadataError for an architecture that is not known or a value that contradicts the tensors,
    TensorError for a tensor that is missing, has another shape, or would be ignored.
    """

    def __init__(self, file: GgufFile) -> None:
        refuse_other_kinds(file)
        self.file = file = as_llama_cpp_names(file)
        self.path, md = file.path, file.metadata
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
        self.tensors = Tensors(file, self.architecture, self.arch, replace(self.arch.hparams(keys), **file.beyond))

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)

    @property
    def hp(self) -> Hparams:
        """The hyperparameters, as the architecture reads them from the metadata."""
        return self.tensors.hp

    def with_hparams(self, **changes: Any) -> "Model":
        """The same file with some hyperparameters replaced: what a runtime computes that reads them wrongly.

        changes  fields of `hp` -> their new values; TypeError if there is no such field

        Returns another Model; this one stays as it is, and the weights are shared.
        """
        return self.with_tensors(self.tensors.changed(hp=replace(self.hp, **changes)))

    def with_tensors(self, tensors: Tensors) -> "Model":
        """The same file with other hyperparameters, weights or steps than it says: `tensors.changed(...)` makes them.

        Returns another Model; this one stays as it is.
        """
        other = copy(self)
        other.tensors, other.arch = tensors, tensors.arch
        return other

    @property
    def weights(self) -> Mapping[str, Weight]:
        """Tensor name -> its packed Weight: .type, .shape (rows first), .rows (the packed bytes), .dense(dtype) (of vectors)."""
        return self.tensors.weights

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks of the trunk, by number: `blocks[3].attn_q` is the Weight of blk.3.attn_q.weight."""
        return self.tensors.blocks

    @property
    def n_vocab(self) -> int:
        """V, the rows of the embedding."""
        return self.tensors.n_vocab

    @property
    def output(self) -> Weight:
        """The head's matrix [V, E]: its own, or the tied embedding."""
        return self.tensors.output

    @property
    def prediction(self) -> Prediction:
        """The weights of the prediction block (MTP). MetadataError if the file has none, or several; TensorError as at loading."""
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
        """Text to token ids and back, by the file's vocabulary and llama.cpp's rules.

        In a file without a vocabulary its `encode` and `decode` raise TokenError. MetadataError for a key of another type.
        """
        return Tokenizer.from_metadata(self.file.metadata)

    def route(self, value: RouteLike = None) -> Route:
        """A route over this model's blocks.

        value  a Route, its text (`blocks:5,7`), a list of source blocks, or None for the file's own order

        RouteError says what does not fit.
        """
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

        RouteError, RefmodelError for numerics of no such name, MetadataError if `mtp` is asked of a file without that block,
        TensorError for a tensor of a type that cannot be run.
        """
        from ..numerics import numerics_of  # now, so that a file is shown without Numba

        return Session(self.tensors, self.route(route), self._as_stored(numerics_of(numerics)), tapper, mtp, scores)

    def batch(self, numerics: "Numerics | str" = "fast") -> Batch:
        """Many sequences under one numerics, each with its own route, that are computed together.

        numerics  a policy or its name; `fast` takes one path for all counts of tokens here, see docs/batches.md

        RefmodelError for numerics of no such name, or whose bits depend on the company of a token without being llama.cpp's,
        TensorError for a tensor of a type that cannot be run.
        """
        from ..numerics import for_batches, numerics_of

        return Batch(self.tensors, self._as_stored(for_batches(numerics_of(numerics))))

    def _as_stored(self, num: "Numerics") -> "Numerics":
        """The numerics for what this file has: factors of matrices, or several matrices in one tensor."""
        from ..numerics import as_stored

        return as_stored(num) if self.tensors.has_scales or any(self.tensors.shares.values()) else num

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

        Logits have the dtype of the numerics: float64 under oracle, else float32. TokenError for an id outside the vocabulary,
        RouteError, MemoryLimitError before keys and values would make the machine swap.
        """
        return self.session(route, numerics, tapper, scores=scores).forward(tokens, logits)


def rope_freqs(file: GgufFile) -> tuple[float, ...]:
    """The values of the optional tensor rope_freqs.weight [n_rot/2], or () without it.

    TensorError for a type that is not decoded.
    """
    if "rope_freqs.weight" not in file.tensors:
        return ()
    tensor = file.tensors["rope_freqs.weight"]
    if tensor.type not in LAYOUTS:
        raise TensorError(f"{file.path}: {not_decoded(tensor.name, tensor.type)}")
    return tuple(map(float, dequantize(tensor.type, tensor.rows).ravel()))


def load(path: str | Path, mtp_file: str | Path | None = None) -> Model:
    """Open a GGUF, the first part of a split one, or a Hugging Face folder with safetensors files, and check it whole.

    Every tensor is there, in its shape, and none is ignored.

    path      of the file or folder; it stays mapped as long as the model lives
    mtp_file  the model's prediction block (MTP), where it is in a GGUF of its own

    FileError if it is no GGUF or is damaged, MetadataError if a value is missing or contradicts the tensors, TensorError if a
    tensor is missing, has another shape, cannot be decoded, or is one that the architecture does not read.
    """
    file = opened(path)
    return Model(file if mtp_file is None else with_draft(as_llama_cpp_names(file), read(mtp_file)))
