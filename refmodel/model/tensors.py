"""The tensors of a file, held against what its architecture reads: every one there, in its shape, and none ignored."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..arch import Architecture, Shape, nextn
from ..arch.fused import PARTS
from ..arch.metadata import FFN
from ..arrays import Ints
from ..errors import MetadataError, TensorError
from ..forward.weights import Block, Share, Weight
from ..gguf.reader import GgufFile
from ..quants import LAYOUTS, not_decoded
from .draft_head import Prediction


class Tensors:
    """The weights of a checked file.

    weights     tensor name -> Weight, as the file has them
    blocks      of the trunk, by number
    shares      block number -> the matrices that are stored in one with others
    has_scales  whether any matrix has a `.scale`
    """

    def __init__(self, file: GgufFile, architecture: str, arch: Architecture, hp: Any) -> None:
        self.path: Path = file.path
        self.architecture, self.arch, self.hp, self.n_layer = architecture, arch, hp, int(hp.n_layer)
        plain = {name: Weight(tensor) for name, tensor in file.tensors.items()}
        scales = {name.removesuffix(".scale") + ".weight": w for name, w in plain.items() if name.endswith(".scale")}
        self.has_scales = bool(scales)
        self.weights = plain | {name: Weight(plain[name].tensor, scale) for name, scale in scales.items() if name in plain}
        self.n_vocab = int(self._known("token_embd.weight", "the whole model").shape[0])
        self.shares: dict[int, dict[str, Share]] = {}
        self._check_shapes()
        self.blocks = [Block(i, {**self.weights, **self.shares[i]}) for i in range(self.n_layer)]

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
            raise MetadataError(f"{self.path}: {key} is {self.hp.n_nextn}; a draft head needs exactly one prediction block")
        i, own = self.n_layer, f"blk.{self.n_layer}.nextn"
        required, optional = nextn.shapes(self.hp, self.n_vocab)
        there = {name: shape for name, shape in optional.items() if f"blk.{i}.{name}" in self.weights}
        self._check(self._block(i, self.arch.shapes(self.hp, i) | required | there, "the prediction block"))
        return Prediction(
            arch=self.arch,
            block=Block(i, {**self.weights, **self.shares[i]}),
            embedding=self.weights.get(f"{own}.embed_tokens.weight", self.weights["token_embd.weight"]),
            norm=self.weights.get(f"{own}.shared_head_norm.weight", self.weights["output_norm.weight"]),
            output=self.weights.get(f"{own}.shared_head_head.weight", self.output),
        )

    @cached_property
    def not_decoded(self) -> list[str]:
        """A line for each tensor of a type that cannot be run: whole numbers, float64, and what only products round to."""
        return [not_decoded(name, w.type) for name, w in self.weights.items() if w.type not in LAYOUTS]

    def _known(self, name: str, who: str) -> Weight:
        if name not in self.weights:
            raise TensorError(f"{self.path}: tensor {name} is missing; {who} needs it")
        return self.weights[name]

    def _check_shapes(self) -> None:
        """Every tensor that the architecture reads is there in its shape, and there is no tensor that it would ignore."""
        required, optional = self.arch.globals(self.hp, self.n_vocab)
        expected = {name: (shape, "the whole model") for name, shape in required.items()}
        optional |= {"output.scale": (1,), "output.input_scale": (1,)}
        expected |= {name: (shape, "the whole model") for name, shape in optional.items() if name in self.weights}
        for i in range(self.n_layer):
            who = f"block {i} ({self.arch.kind(self.hp, i)})"
            expected |= self._block(i, self.arch.shapes(self.hp, i), who)
        self._check(expected)
        skipped = tuple(f"blk.{self.n_layer + i}." for i in range(self.hp.n_nextn))
        for name in self.weights:
            if name not in expected and not name.startswith(skipped or "\0"):
                raise TensorError(
                    f"{self.path}: {name} is a tensor that {self.architecture} does not read; ignoring it would be wrong"
                )

    def _block(self, i: int, shapes: Mapping[str, Shape], who: str) -> dict[str, tuple[Shape, str]]:
        """The tensors that block i has in this file, `shapes` those that it reads; `shares` learns which are parts of one."""
        prefix, arch, found, parts = f"blk.{i}.", self.arch, dict(shapes), dict[str, tuple[str, Ints]]()
        here = {name.removeprefix(prefix) for name in self.weights if name.startswith(prefix)}
        biased = [name for name in arch.BIASED if f"{name}.bias" in here and f"{name}.weight" in shapes]
        if both := [name for name in biased if name in FFN and f"{name}.scale" in here]:
            raise TensorError(
                f"{self.path}: {prefix}{both[0]} has a bias and a scale; in a feed-forward part llama.cpp scales the bias too, "
                f"which its source calls incorrect: remove one of {prefix}{both[0]}.bias and {prefix}{both[0]}.scale"
            )
        found |= {f"{name}.bias": shapes[f"{name}.weight"][:1] for name in biased}
        for whole in arch.FUSED:
            rows = PARTS[whole](self.hp, shapes) if f"{whole}.weight" in here else {}
            if not (alone := {f"{part}.bias" for part in rows}) <= set(found):  # llama.cpp adds the biases of all, or none
                found = {name: s for name, s in found.items() if name not in alone}
            for end in ("weight", "bias") if set(rows) <= set(arch.BIASED) else ("weight",):
                if rows and f"{whole}.{end}" in here:
                    *experts, _, width = shapes[f"{next(iter(rows))}.weight"]
                    shape = (*experts, sum(map(len, rows.values())), width)
                    found = {name: s for name, s in found.items() if name not in {f"{part}.{end}" for part in rows}}
                    found[f"{whole}.{end}"] = shape if end == "weight" else shape[:1]
                    parts |= {f"{part}.{end}": (f"{whole}.{end}", own) for part, own in rows.items()}
        qkv = ("attn_qkv",) if "attn_q.weight" in parts else ()
        for name in (*arch.SCALED, *nextn.SCALED, *qkv):
            if len(matrix := found.get(f"{name}.weight", ())) > 1:  # no graph of llama.cpp reads an input_scale
                found |= {f"{name}.{s}": matrix[:-2] or (1,) for s in ("scale", "input_scale") if f"{name}.{s}" in here}
        expected = {prefix + name: (shape, who) for name, shape in found.items()}
        self._check({prefix + whole: expected[prefix + whole] for whole, _ in parts.values()})
        self.shares[i] = {prefix + name: Share(self.weights[prefix + whole], rows) for name, (whole, rows) in parts.items()}
        return expected

    def _check(self, expected: Mapping[str, tuple[Shape, str]]) -> None:
        for name, (shape, who) in expected.items():
            found = self._known(name, who).shape
            if found != shape:
                raise TensorError(
                    f"{self.path}: {name} has shape {found}; {who} of this {self.architecture} needs {shape} (rows, columns)"
                )
