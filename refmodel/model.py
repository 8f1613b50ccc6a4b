"""A model: a GGUF that passed every check, and its forward pass under any route and numerics."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arch import ARCHITECTURES, Shape, nextn
from .arch.fused import PARTS
from .arch.keys import FFN
from .arrays import F, Ints, keep_pages
from .call import Call, passing
from .draft import DraftHead, Prediction
from .errors import MemoryLimitError, MetadataError, RefmodelError, TensorError, TokenError
from .free import available
from .gguf.reader import GgufFile, read
from .head import likeliest
from .quants import dequantize
from .route import Route
from .tokenizer import Tokenizer
from .trace import SILENT, Tapper
from .weights import Block, Share, Weight

if TYPE_CHECKING:
    from .numerics import Numerics

RouteLike = Route | str | Sequence[int] | None


class Model:
    """A loaded model. Weights stay packed over the file's mapping; nothing is decoded at loading."""

    def __init__(self, file: GgufFile) -> None:
        self.file, self.path, md = file, file.path, file.metadata
        self.architecture = md.str("general.architecture")
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise MetadataError(f"{self.path}: general.architecture is {self.architecture!r}; known are {known}")
        self.arch = ARCHITECTURES[self.architecture]
        self.hp: Any = self.arch.hparams(md, rope_freqs(file))
        plain = {name: Weight(tensor) for name, tensor in file.tensors.items()}
        scales = {name.removesuffix(".scale") + ".weight": w for name, w in plain.items() if name.endswith(".scale")}
        self.has_scales = bool(scales)
        self.weights = plain | {name: Weight(plain[name].tensor, scale) for name, scale in scales.items() if name in plain}
        self.n_vocab = int(self._known("token_embd.weight", "the whole model").shape[0])
        self.shares: dict[int, dict[str, Share]] = {}  # of each block, the matrices that are stored in one
        self._check_shapes()
        self.blocks = [Block(i, {**self.weights, **self.shares[i]}) for i in range(self.n_layer)]

    @property
    def n_layer(self) -> int:
        """Blocks of the trunk: those that a route may name."""
        return int(self.hp.n_layer)

    @property
    def kinds(self) -> list[str]:
        return [self.arch.kind(self.hp, i) for i in range(self.n_layer)]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_metadata(self.file.metadata)

    @cached_property
    def output(self) -> Weight:
        """The head's matrix: its own, or the tied embedding; with its scale and its bias, if there are any."""
        own = self.weights.get("output.weight", self.weights["token_embd.weight"])
        return Weight(own.tensor, self.weights.get("output.scale"), self.weights.get("output.bias"))

    def route(self, value: RouteLike = None) -> Route:
        return Route.of(value, self.n_layer)

    def session(
        self, route: RouteLike = None, numerics: "Numerics | str" = "reference", tapper: Tapper = SILENT, mtp: bool = False
    ) -> "Session":
        """A sequence that is fed piece by piece; state is carried between the calls. With `mtp` the draft head reads along."""
        from .numerics import as_stored, numerics_of  # now, so that a file is shown without Numba

        num = numerics_of(numerics)
        return Session(
            self, self.route(route), as_stored(num) if self.has_scales or any(self.shares.values()) else num, tapper, mtp
        )

    def forward(
        self,
        tokens: Sequence[int],
        route: RouteLike = None,
        numerics: "Numerics | str" = "reference",
        logits: str = "all",
        tapper: Tapper = SILENT,
    ) -> F:
        """The logits of a sequence from its start.

        tokens    T token ids
        route     a Route, its text, a list of source blocks, or None for the file's own order
        numerics  a policy or its name
        logits    "all" -> [T, V]; "last" -> [1, V]
        """
        return self.session(route, numerics, tapper).forward(tokens, logits)

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


class Session:
    """One sequence under one route and one policy: states by position, and the number of tokens seen.

    draft  the draft head, behind the last position, which is fed with the same tokens; None without `mtp`
    """

    def __init__(self, model: Model, route: Route, num: "Numerics", tapper: Tapper = SILENT, mtp: bool = False) -> None:
        self.model, self.route, self.num, self.tapper = model, route, num, tapper
        self.n_past = self.room = 0
        keep_pages()
        self.states = [model.arch.new_state(model.hp, source, num.dtype) for source in route.layers]
        self.draft: DraftHead | None = None
        if mtp:
            prediction = model.prediction
            self.states.append(model.arch.new_state(model.hp, model.n_layer, num.dtype))
            self.draft = DraftHead(prediction, self.states[-1], len(route.layers))

    def memory(self, tokens: int) -> int:
        """Bytes that the states of all positions take for so many tokens in all."""
        return sum(state.bytes(tokens, self.num.cache) for state in self.states)

    def reserve(self, tokens: int) -> None:
        """Room for so many tokens in all. MemoryLimitError, and nothing is taken, if the machine would have to swap."""
        if tokens <= self.room:
            return
        free, needed = available(), self.memory(tokens)
        if free is not None and needed > free:
            gib = "{:.2f} GiB".format
            raise MemoryLimitError(
                f"keys and values of {tokens:,} tokens at {len(self.states)} positions take {gib(needed / 2**30)}; "
                f"{gib(free / 2**30)} of memory are free: take a shorter prompt, or a smaller --ctx or -n"
            )
        for state in self.states:
            state.reserve(tokens)
        self.room = tokens

    def forward(self, tokens: Sequence[int], logits: str = "all") -> F:
        """Feed T >= 1 more tokens; logits [T, V], or [1, V] of the last.

        Any split of a prompt gives the same bits, but under `llamacpp`: there a call is one ubatch, whose size chooses the paths.
        """
        if logits not in ("all", "last"):
            raise RefmodelError(f"logits is {logits!r}; expected 'all' or 'last'")
        with passing():
            h, c = self._trunk(tokens, logits == "all")
            return self.model.arch.head(h, self.model.output, c)

    def likeliest(self, tokens: Sequence[int], k: int = 1) -> tuple[Ints, F]:
        """Feed T >= 1 more tokens; the ids and logits of the k likeliest next ones, both [k], the likeliest first.

        The logits have the bits of `forward`, but are not made for the whole vocabulary at once. Of equals the smaller id is first.
        """
        if k < 1:
            raise RefmodelError(f"{k} likeliest tokens: expected at least 1")
        with passing():
            h, c = self._trunk(tokens, every=False)
            return likeliest(lambda rows: self.model.arch.head(h, rows, c), self.model.output, min(k, self.model.n_vocab))

    def _trunk(self, tokens: Sequence[int], every: bool) -> tuple[F, Call]:
        """What the head reads of every token [T, E], or of the last [1, E], and the call that it was."""
        model, ids = self.model, checked_tokens(tokens, self.model.n_vocab)
        end = self.n_past + len(ids)
        if end > self.room:
            self.reserve(max(end, min(2 * self.room, self.room + 4096)))
        pos = np.arange(self.n_past, self.n_past + len(ids))
        c = Call(model.hp, self.num, pos, self.tapper)
        x = model.arch.embed(self.num.embed(model.weights["token_embd.weight"], ids, self.num.dtype), c)
        for position, source in enumerate(self.route.layers):
            x = model.arch.block(x, model.blocks[source], self.states[position], c.at(position))
        self.n_past += len(ids)
        h = model.arch.final_norm(x if every or self.draft else x[-1:], model.weights["output_norm.weight"], c)
        if self.draft:
            self.draft.feed(ids, h, c)
        return h if every else h[-1:], c


def checked_tokens(tokens: Sequence[int], n_vocab: int) -> Ints:
    """Token ids as an array, after the check that each names a row of the embedding."""
    if not len(tokens):
        raise TokenError("expected at least one token id, found none")
    for i, token in enumerate(tokens):
        if not isinstance(token, int | np.integer) or not 0 <= token < n_vocab:
            raise TokenError(f"token {token} at place {i} is outside the vocabulary; ids are whole numbers from 0 to {n_vocab - 1}")
    return np.array(tokens, np.int64)


def rope_freqs(file: GgufFile) -> tuple[float, ...]:
    """The values of the optional tensor rope_freqs.weight, or none."""
    if "rope_freqs.weight" not in file.tensors:
        return ()
    tensor = file.tensors["rope_freqs.weight"]
    return tuple(map(float, dequantize(tensor.type, tensor.rows).ravel()))


def load(path: str | Path) -> Model:
    """Open a GGUF (or the first part of a split one) and check it whole. Raises FileError, MetadataError, TensorError."""
    return Model(read(path))
