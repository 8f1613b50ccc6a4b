"""The tensors of a file, held against what its architecture reads: every one there, in its shape, and none ignored."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..arch import Architecture, Hparams, Shape, Shapes, nextn
from ..arch.fused import PARTS
from ..arch.shapes import FFN, same
from ..arrays import Ints
from ..errors import MetadataError, TensorError
from ..forward.weights import Block, Share, Weight
from ..gguf.reader import GgufFile
from ..quants import LAYOUTS, not_decoded
from .draft_head import Prediction

Expected = dict[str, tuple[Shape, str]]
"""Tensor -> its shape, and who needs it."""

Parts = dict[str, tuple[str, Ints]]
"""Matrix -> the one tensor that holds it together with others, and which of its rows; both without `.weight`."""


class Tensors:
    """The weights of a checked file. TensorError if one is missing, has a wrong shape, or would be ignored.

    weights     tensor name -> Weight, in the shape that its architecture gives it, with its scale and its bias
    blocks      of the trunk, by number
    shares      block number -> the matrices that are stored in one with others
    has_scales  whether any matrix has a `.scale`
    n_vocab     V, the rows of the embedding
    """

    def __init__(self, file: GgufFile, architecture: str, arch: Architecture, hp: Hparams) -> None:
        self.path: Path = file.path
        self.architecture, self.arch, self.hp, self.n_layer = architecture, arch, hp, hp.n_layer
        self.tensors = file.tensors
        self.has_scales = any(name.endswith(".scale") for name in file.tensors)
        self._known("token_embd.weight", "the whole model")
        self.n_vocab = int((1, *file.tensors["token_embd.weight"].shape)[-2])
        expected, parts = self._outside(), dict[int, Parts]()
        for i in range(self.n_layer):
            block, parts[i] = self._in_block(i, arch.shapes(hp, i), f"block {i} ({arch.kind(hp, i)})")
            expected |= block
        self.weights = {name: Weight(tensor) for name, tensor in file.tensors.items()} | self._checked(expected)
        self._refuse_unread(expected)
        self.shares = {i: shares(f"blk.{i}.", self.weights, parts[i]) for i in range(self.n_layer)}
        self.blocks = [Block(i, {**self.weights, **self.shares[i]}) for i in range(self.n_layer)]

    def changed(
        self,
        hp: Hparams | None = None,
        arch: Architecture | None = None,
        blocks: Sequence[Block] | None = None,
        weights: Mapping[str, Weight] | None = None,
    ) -> "Tensors":
        """The same file read with some of its parts replaced; nothing is checked, and what stays is shared.

        hp       other hyperparameters
        arch     other steps
        blocks   other blocks of the trunk, by number
        weights  other tensors outside of blocks, by name
        """
        other = copy(self)
        other.hp, other.arch = hp or self.hp, arch or self.arch
        other.blocks, other.weights = list(blocks or self.blocks), self.weights | dict(weights or {})
        for made_of_these in ("output", "prediction"):
            other.__dict__.pop(made_of_these, None)
        return other

    @cached_property
    def output(self) -> Weight:
        """The head's matrix: its own, or the tied embedding; with its scale and its bias, if there are any."""
        own = self.weights.get("output.weight", self.weights["token_embd.weight"])
        return Weight(own.tensor, self.weights.get("output.scale"), self.weights.get("output.bias"))

    @cached_property
    def prediction(self) -> Prediction:
        """The prediction block. MetadataError if there is none, or several, which llama.cpp refuses; TensorError as at loading."""
        if self.hp.n_nextn != 1:
            key = f"{self.architecture}.nextn_predict_layers"
            raise MetadataError(
                f"{self.path}: {key} is {self.hp.n_nextn}; a draft head needs exactly one prediction block: leave out --mtp"
            )
        i, own = self.n_layer, f"blk.{self.n_layer}.nextn"
        required, optional = nextn.shapes(self.hp, self.n_vocab)
        there = {name: shape for name, shape in optional.items() if f"blk.{i}.{name}" in self.tensors}
        expected, parts = self._in_block(i, self.arch.shapes(self.hp, i) | required | there, "the prediction block")
        weights = self.weights | self._checked(expected)
        self.shares[i] = shares(f"blk.{i}.", weights, parts)
        return Prediction(
            arch=self.arch,
            block=Block(i, {**weights, **self.shares[i]}),
            embedding=weights.get(f"{own}.embed_tokens.weight", weights["token_embd.weight"]),
            norm=weights.get(f"{own}.shared_head_norm.weight", weights["output_norm.weight"]),
            output=weights.get(f"{own}.shared_head_head.weight", self.output),
        )

    @cached_property
    def not_decoded(self) -> list[str]:
        """A line for each tensor of a type that cannot be run: whole numbers, float64, and what only products round to."""
        return [not_decoded(name, w.type) for name, w in self.weights.items() if w.type not in LAYOUTS]

    def _outside(self) -> Expected:
        """What this file should have outside of blocks."""
        required, optional = self.arch.globals(self.hp, self.n_vocab)
        optional = optional | {"output.scale": (1,), "output.input_scale": (1,)}
        there = {name: shape for name, shape in optional.items() if name in self.tensors}
        return {name: (shape, "the whole model") for name, shape in (required | there).items()}

    def _in_block(self, i: int, shapes: Shapes, who: str) -> tuple[Expected, Parts]:
        """What this file should have of block i, which reads `shapes`; and which of those it keeps in one with others."""
        prefix = f"blk.{i}."
        here = {name.removeprefix(prefix) for name in self.tensors if name.startswith(prefix)}
        shapes = with_biases(shapes, self.arch, here)
        self._refuse_scaled_biases(prefix, shapes, here)
        shapes, parts = fused(shapes, self.arch, self.hp, here)
        shapes = with_scales(shapes, self.arch, here, parts)
        return {prefix + name: (shape, who) for name, shape in shapes.items()}, parts

    def _checked(self, expected: Expected) -> dict[str, Weight]:
        """The expected tensors in their expected shapes, each matrix with its companions."""
        plain = dict[str, Weight]()
        for name, (shape, who) in expected.items():
            self._known(name, who)
            tensor = self.tensors[name]
            if not same(tensor.shape, shape):
                raise TensorError(
                    f"{self.path}: {name} has shape {tensor.shape}; {who} of this {self.architecture} needs {shape} "
                    "(rows, columns): convert the model again"
                )
            plain[name] = Weight(tensor if tensor.shape == shape else replace(tensor, shape=shape))
        return {name: with_companions(name, w, plain) for name, w in plain.items()}

    def _known(self, name: str, who: str) -> None:
        if name not in self.tensors:
            raise TensorError(
                f"{self.path}: tensor {name} is missing; {who} needs it: convert the model again, or download it whole"
            )

    def _refuse_scaled_biases(self, prefix: str, shapes: Shapes, here: set[str]) -> None:
        both = [prefix + name for name in FFN if f"{name}.bias" in shapes and f"{name}.scale" in here]
        if both:
            raise TensorError(
                f"{self.path}: {both[0]} has a bias and a scale; in a feed-forward part llama.cpp scales the bias too, "
                f"which its source calls incorrect: remove one of {both[0]}.bias and {both[0]}.scale"
            )

    def _refuse_unread(self, expected: Expected) -> None:
        skipped = tuple(f"blk.{self.n_layer + i}." for i in range(self.hp.n_nextn))
        for name in self.tensors:
            if name not in expected and not name.startswith(skipped or "\0"):
                raise TensorError(
                    f"{self.path}: {name} is a tensor that {self.architecture} does not read; ignoring it would be wrong: "
                    "remove it, or convert the model again"
                )


def with_biases(shapes: Shapes, arch: Architecture, here: set[str]) -> Shapes:
    """The tensors of a block, and the biases [O] that the file has of its matrices. `here` are the names in the file."""
    biased = [name for name in arch.BIASED if f"{name}.bias" in here and f"{name}.weight" in shapes]
    return shapes | {f"{name}.bias": shapes[f"{name}.weight"][:1] for name in biased}


def fused(shapes: Shapes, arch: Architecture, hp: Hparams, here: set[str]) -> tuple[Shapes, Parts]:
    """The tensors of a block, where one replaces those that the file keeps in one.

    here  the names in the file

    Returns the shapes of what the file should have, and for each matrix in a common tensor its name and its rows.
    """
    parts = Parts()
    for whole in arch.FUSED:
        rows = PARTS[whole](hp, shapes) if f"{whole}.weight" in here else {}
        if rows:
            bias = f"{whole}.bias" in here and set(rows) <= set(arch.BIASED)
            shapes = joined(shapes, whole, rows, bias)
            parts |= {name: (whole, own) for name, own in rows.items()}
    return shapes, parts


def joined(shapes: Shapes, whole: str, rows: Mapping[str, Ints], bias: bool) -> Shapes:
    """The tensors of a block with matrix `whole` instead of several; `rows` names these and their rows.

    bias  whether `whole` has one bias. Separate biases are kept if the file has one for each part; llama.cpp adds none otherwise.
    """
    *experts, _, width = shapes[f"{next(iter(rows))}.weight"]
    shape = (*experts, sum(map(len, rows.values())), width)
    gone, apart = {f"{name}.weight" for name in rows}, {f"{name}.bias" for name in rows}
    if bias or not apart <= shapes.keys():
        gone |= apart
    own = {f"{whole}.weight": shape} | ({f"{whole}.bias": shape[:1]} if bias else {})
    return {name: shape for name, shape in shapes.items() if name not in gone} | own


def with_scales(shapes: Shapes, arch: Architecture, here: set[str], parts: Parts) -> Shapes:
    """The tensors of a block, and the factors that the file has of its matrices: [1], of experts [X].

    here   the names in the file
    parts  what is stored in one with others

    No graph of llama.cpp reads an input_scale.
    """
    names = (*arch.SCALED, *nextn.SCALED, *(("attn_qkv",) if "attn_q" in parts else ()))
    matrices = {name: shapes[f"{name}.weight"] for name in names if len(shapes.get(f"{name}.weight", ())) > 1}
    ends = ("scale", "input_scale")
    return shapes | {f"{name}.{end}": m[:-2] or (1,) for name, m in matrices.items() for end in ends if f"{name}.{end}" in here}


def with_companions(name: str, w: Weight, plain: Mapping[str, Weight]) -> Weight:
    """A matrix with its scale and its bias, if there are any; any other tensor as it is. `plain` has all weights by name."""
    if not name.endswith(".weight"):
        return w
    stem = name.removesuffix("weight")
    return Weight(w.tensor, plain.get(f"{stem}scale"), plain.get(f"{stem}bias"))


def shares(prefix: str, weights: Mapping[str, Weight], parts: Parts) -> dict[str, Share]:
    """The matrices of a block that are stored in one with others, by the names that they would have by themselves."""
    out = dict[str, Share]()
    for name, (whole, rows) in parts.items():
        of = weights[f"{prefix}{whole}.weight"]
        bias = Share(of.bias, rows) if of.bias else weights.get(f"{prefix}{name}.bias")
        out[f"{prefix}{name}.weight"] = Share(of, rows, bias)
    return out
