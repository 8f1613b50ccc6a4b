"""The tensors of a folder as llama.cpp has them: views of its files, put in order when they are asked for."""

import re
from dataclasses import dataclass, field
from math import prod

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arch import ARCHITECTURES, Hparams
from ..arrays import Bytes, Ints
from ..errors import TensorError
from ..gguf.tensor import AnyTensor, Arranged, Tensor
from .classes import PREDICTS, Class, Move, Moves
from .folder import Folder
from .held import Rows, Values, numbers, packed_rows, type_of
from .orders import Order
from .safetensors import FolderTensor

# Matrices that are F32 in every file that llama.cpp's converter writes, as vectors and norms are. Source: prepare_tensors.
ALWAYS_F32 = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight", "shortconv.conv.weight"}
# Tensors of other parts of a model, and buffers that are computed.
ELSEWHERE = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|\w*projector)\.|rotary_emb\.inv_freq$")
PREDICTING = "mtp."


def predicting_layers(folder: Folder) -> int:
    """How many prediction layers (MTP) a folder has, by the numbers in the names of their tensors."""
    numbers = [int(m[1]) for name in folder.tensors if (m := re.match(rf"{re.escape(PREDICTING)}layers\.(\d{{1,9}})\.", name))]
    return max(numbers, default=-1) + 1


@dataclass
class Made:
    """The tensors of one folder, as they are made.

    hp       sizes of the model
    tensors  name in llama.cpp -> tensor
    sources  name in llama.cpp -> the folder's tensors that it is made of, and how
    """

    folder: Folder
    hp: Hparams
    tensors: dict[str, AnyTensor] = field(default_factory=dict)
    sources: dict[str, tuple[list[FolderTensor], Move]] = field(default_factory=dict)

    def add(self, prefix: str, their_prefix: str, moves: Moves) -> None:
        """Make the tensors of a table whose sources are there.

        prefix, their_prefix  of names in llama.cpp, and of those in the folder

        TensorError for a source of a type or a shape of which its tensor cannot be made.
        """
        for target, ways in moves.items():
            known = ((self._found(their_prefix + move.source), move) for move in ways)
            if one := next(((found, move) for found, move in known if found), None):
                name = prefix + target
                self.sources[name] = one
                self.tensors[name] = arranged(str(self.folder.path), name, target, *one, self.hp)

    def _found(self, pattern: str) -> list[FolderTensor]:
        """The tensors of a name, one for each expert where {x} is in it; none if the first is not there."""
        held = self.folder.tensors
        names = [pattern.replace("{x}", str(x)) for x in range(self.hp.n_expert if "{x}" in pattern else 1)]
        if not names or names[0] not in held:
            return []
        if missing := next((name for name in names if name not in held), None):
            raise TensorError(
                f"{self.folder.path}: tensor {missing} is missing; there should be {len(names)} experts: get the folder again"
            )
        return [held[name] for name in names]

    def refuse_unread(self) -> None:
        """TensorError for a tensor of the folder that nothing was made of."""
        read = {t.name for found, _ in self.sources.values() for t in found}
        for name in self.folder.tensors:
            if name not in read and not ELSEWHERE.search(name):
                raise TensorError(
                    f"{self.folder.path}: {name} is a tensor that is not read; ignoring it would be wrong: remove it, or give a "
                    "GGUF of the model"
                )


def made(folder: Folder, cls: Class, hp: Hparams) -> Made:
    """All tensors of a folder of that class. TensorError for one that cannot be read, or that the class does not have."""
    out = Made(folder, hp)
    root = folder.prefix.removesuffix("layers.")
    above = root.removesuffix("model.") if root.startswith("language_model.") else ""
    norm = (Move(f"{cls.last}.weight", change=cls.change),)
    last = f"{ARCHITECTURES[cls.arch].FACTS.last_norm}.weight"
    out.add("", root, {"token_embd.weight": (Move("embed_tokens.weight"),), last: norm})
    out.add("", above, {f"output.{end}": (Move(f"lm_head.{end}"),) for end in ("weight", "bias")})
    for i in range(hp.n_layer):
        out.add(f"blk.{i}.", f"{folder.prefix}{i}.", cls.layer)
    if hp.n_nextn:
        out.add(f"blk.{hp.n_layer}.", PREDICTING, PREDICTS)
    for i in range(hp.n_nextn):
        out.add(f"blk.{hp.n_layer + i}.", f"{PREDICTING}layers.{i}.", cls.layer)
    refuse_lost_head(folder, f"{above}lm_head.weight")
    out.refuse_unread()
    return out


def refuse_lost_head(folder: Folder, name: str) -> None:
    """TensorError for a folder that says it has a head of its own, and has none: transformers would begin with random numbers."""
    said = [home.get("tie_word_embeddings") for home in folder.homes]
    if False in said and True not in said and name not in folder.tensors:
        raise TensorError(
            f"{folder.path}: tensor {name} is missing, and config.json says tie_word_embeddings false; get the folder again, or "
            "say true if the embedding is the head"
        )


def arranged(where: str, name: str, target: str, found: list[FolderTensor], move: Move, hp: Hparams) -> AnyTensor:
    """One tensor of llama.cpp from its sources.

    where   the folder, for messages
    target  its name without `blk.N.`

    TensorError for a source of a type or a shape of which it cannot be made.
    """
    first, kind = found[0], type_of(where, found[0])
    if odd := next((t for t in found if (t.shape, t.type) != (first.shape, first.type)), None):
        raise TensorError(
            f"{where}: {odd.name} is {odd.type} of shape {odd.shape}, {first.name} {first.type} of {first.shape}; experts are "
            "alike: get the folder again"
        )
    flat = first.shape[:1] + first.shape[2:] if len(first.shape) == 3 and first.shape[1] == 1 else first.shape
    rows = order_of(where, first, move.rows, hp, flat[0] if flat else 0)
    shape = flat if rows is None else (len(rows), *flat[1:])
    if move.half is not None:
        shape = (*shape[:-2], shape[-2] // 2, shape[-1])
    if "{x}" in move.source:
        shape = (len(found), *shape)
    if len(shape) < 2 or target.endswith("_norm.weight") or not target.endswith(".weight") or target in ALWAYS_F32:
        values = numbers(kind, first, rows, move.change.of if move.change else None)
        return Arranged(name, Q.F32, shape, first.file, Values(values, prod(shape[:-1])))
    columns = order_of(where, first, move.columns, hp, shape[-1])
    if len(found) == 1 and rows is None and columns is None and move.half is None:
        return Tensor(name, kind, shape, first.file, first.data)
    start = shape[-2] if move.half else 0
    held = Rows(pieces_of(found), start if rows is None else rows, shape[-2], columns, 4 if kind == Q.F32 else 2)
    return Arranged(name, kind, shape, first.file, held)


def pieces_of(found: list[FolderTensor]) -> list[Bytes]:
    """The packed rows of matrices [R, bytes of a row]: of each tensor, or of each expert that one tensor holds."""
    if len(found) == 1 and len(found[0].shape) == 3:
        experts = packed_rows(found[0]).reshape(found[0].shape[0], found[0].shape[1], -1)
        return list(experts)
    return [packed_rows(t) for t in found]


def order_of(where: str, t: FolderTensor, order: Order | None, hp: Hparams, count: int) -> Ints | None:
    """The numbers of `count` rows or columns in an order; None for no order. TensorError if the count does not fit the model."""
    if order is None:
        return None
    try:
        found = order.of(hp, count)
    except ValueError:
        raise TensorError(
            f"{where}: {t.name} has shape {t.shape}, which does not fit the heads that config.json says: get the folder again"
        ) from None
    return None if np.array_equal(found, np.arange(count)) else found
