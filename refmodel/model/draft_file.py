"""A trunk and its prediction block (MTP) in two files, joined: what llama.cpp opens as a model and its draft.

Source: convert_hf_to_gguf.py --mtp and --no-mtp of llama.cpp, which write the two; src/models/qwen35.cpp, mtp_only.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..arch import ARCHITECTURES
from ..errors import MetadataError, TensorError
from ..gguf.metadata import Field, Metadata
from ..gguf.reader import GgufFile
from ..gguf.tensor import AnyTensor
from ..gguf.writer import field
from .file_kind import refuse_other_kinds

COUNTS = ("block_count", "nextn_predict_layers")
# What llama.cpp reads of the draft's own file, and the name that it has in a file of both; the last in a list is taken if the
# first is missing.
OWN = {
    "nextn.embed_tokens.weight": ("token_embd.weight",),
    "nextn.shared_head_norm.weight": ("output_norm.weight",),
    "nextn.shared_head_head.weight": ("output.weight", "token_embd.weight"),
}


def with_draft(trunk: GgufFile, draft: GgufFile) -> GgufFile:
    """The trunk's file with the prediction block of another one; embedding, norm and head of the block are the draft's own.

    MetadataError for a draft of another architecture or other sizes, a file without a prediction block, or a trunk that has one.
    TensorError if the block has no tensors.
    """
    refuse_other_kinds(trunk)
    arch = checked_architecture(trunk.metadata, draft.metadata)
    n = trunk_blocks(trunk.metadata, draft.metadata, arch)
    check_sizes(trunk.metadata, draft.metadata, arch)
    own = {key: value for key, value in draft.metadata.fields.items() if key.startswith(f"{arch}.")}
    fields = {key: one_block_more(key, value, n) for key, value in trunk.metadata.fields.items() if key not in own} | own
    tensors = dict(trunk.tensors) | drafts_tensors(draft, n)
    joined = replace(trunk, metadata=Metadata(trunk.path, fields), tensors=tensors, parts=(*trunk.parts, *draft.parts))
    return replace(joined, draft=draft.path, notes=(*trunk.notes, f"blk.{n}.* is from {draft.path}"))


def checked_architecture(trunk: Metadata, draft: Metadata) -> str:
    """The architecture of both files. MetadataError if it differs, or has no prediction blocks."""
    arch, other = (md.str("general.architecture") for md in (trunk, draft))
    if other != arch:
        raise MetadataError(
            f"{draft.path}: general.architecture is {other!r}; {trunk.path} is {arch!r}: give a draft of this model"
        )
    known = sorted(name for name, module in ARCHITECTURES.items() if module.FACTS.predicts)
    if arch not in known:
        may = ", ".join(known)
        raise MetadataError(f"{trunk.path}: {arch} has no prediction block (MTP); {may} may have one: leave out --mtp-file")
    return arch


def trunk_blocks(trunk: Metadata, draft: Metadata, arch: str) -> int:
    """The number of the trunk's blocks, on which both files must agree. MetadataError otherwise."""
    (n, inside), (behind, predicting) = ([md.int(f"{arch}.{key}", 0) for key in COUNTS] for md in (trunk, draft))
    if inside:
        raise MetadataError(f"{trunk.path}: has a prediction block (MTP) of its own; leave out --mtp-file, and give --mtp")
    if predicting < 1:
        raise MetadataError(
            f"{draft.path}: {arch}.nextn_predict_layers is {predicting}; a draft has a prediction block; give another"
        )
    if behind - predicting != n:
        raise MetadataError(
            f"{draft.path}: is a draft for {behind - predicting} blocks; {trunk.path} has {n}: give a draft of this model"
        )
    return n


def check_sizes(trunk: Metadata, draft: Metadata, arch: str) -> None:
    """MetadataError for a number that differs between the files: they are of two models."""
    for key in draft:
        if key.startswith(f"{arch}.") and key in trunk and key.removeprefix(f"{arch}.") not in COUNTS:
            a, b = (alike(md[key]) for md in (trunk, draft))
            if a != b and not (isinstance(a, list) and isinstance(b, list) and a == b[: len(a)]):
                raise MetadataError(f"{draft.path}: {key} is {b}; it is {a} in {trunk.path}: give a draft of this model")


def alike(value: Any) -> Any:
    """A value that can be compared: a list for an array."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def one_block_more(key: str, value: Field, n: int) -> Field:
    """A list of one value for each of the trunk's n blocks with one for the prediction block; any other value as it is."""
    arch, _, name = key.partition(".")
    if value.item is None or value.count != n or arch not in ARCHITECTURES:
        return value
    values, how = value.value(), ARCHITECTURES[arch].FACTS.kinds
    last = False if how and name == how.listed else values[-1]
    return field(value.type, [*values, last], value.item)


def drafts_tensors(draft: GgufFile, n: int) -> dict[str, AnyTensor]:
    """The tensors of the prediction block, under the names that a file of both has. TensorError if there are none."""
    start = f"blk.{n}."
    tensors = {name: t for name, t in draft.tensors.items() if name.startswith("blk.") and int_of(name) >= n}
    if not any(name.startswith(f"{start}nextn.") for name in tensors):
        raise TensorError(
            f"{draft.path}: has no tensor {start}nextn.*: it holds no prediction block after {n} blocks; give another"
        )
    for name, sources in OWN.items():
        source = next((draft.tensors[own] for own in sources if own in draft.tensors), None)
        if source and start + name not in tensors:
            tensors[start + name] = replace(source, name=start + name)
    return tensors


def int_of(name: str) -> int:
    """The block's number in a tensor's name; -1 if there is none."""
    number = name.split(".")[1]
    return int(number) if number.isdecimal() and len(number) < 9 else -1
