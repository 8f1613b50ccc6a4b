"""(Hugging Face folder, Route) -> a folder with the route's layers in order.

Bytes are copied, nothing is decoded: a number type that this module has never heard of is copied like any other. The weights are
safetensors files: the length of a JSON header in 8 bytes, the header, the data.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import FileError, RouteError
from ..gguf.writer import Limit, copy, parted
from ..hf.folder import CONFIG, INDEX, OTHER_WEIGHTS, WHOLE, Folder
from ..hf.safetensors import FolderTensor
from ..machine.files import Beside, not_written, sync_folder
from ..machine.partial import folder as made
from ..machine.partial import name_for, remove_left_over
from ..model.route import Route
from .copy_map import folder_plan
from .hf_config import not_run, routed_config

SHARD = Limit(size=5e9)
MISTRALS = ("params.json",)  # the configuration of consolidated.safetensors, which says the source's number of layers


def routed_folder(
    folder: Folder, route: Route, out: Path, limit: Limit = SHARD, seen: Callable[[int], None] = lambda count: None
) -> Path:
    """Write the checkpoint that computes the route, whole or not at all; other files of the folder are copied. Returns its path.

    limit  of each safetensors file
    seen   gets the number of bytes just copied

    RouteError for layers that transformers does not run, MetadataError for a list of unknown meaning, FileError for a folder
    that exists already or is inside the source.
    """
    plan = folder_plan(folder, route)
    config = routed_config(folder, plan)
    if why := not_run(folder, plan):
        raise RouteError(f"route {route.canonical[:80]}: {why}; nothing was written; give the route a layer of the other kind")
    origins = plan.origins(folder.tensors)
    groups = parted([replace(folder.tensors[source], name=name) for name, source in origins.items()], limit, lambda t: t.data.size)
    check_apart(folder, out)
    digest = Beside(folder.sha256)
    remove_left_over(out.parent)
    partial = name_for(out)
    try:
        with made(partial):
            fill(partial, folder, groups, seen)
            config["rys_relayer"]["source_sha256"] = digest.value()
            save_json(partial / CONFIG, config)
            sync_file(partial / CONFIG)
            sync_folder(partial)
            os.replace(partial, out)  # an empty folder of that name is replaced
        sync_folder(out.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise not_written(error, out, [partial]) from None
    return out


def fill(partial: Path, folder: Folder, groups: Sequence[Sequence[FolderTensor]], seen: Callable[[int], None]) -> None:
    """Write the weights of a copy, group by group, and copy the folder's other files, all but the configuration."""
    names = [f"model-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    names = names if len(groups) > 1 else [WHOLE]
    for name, group in zip(names, groups, strict=True):
        with (partial / name).open("xb") as file:
            write_safetensors(file, group, seen)
    if len(groups) > 1:
        index = {t.name: name for name, group in zip(names, groups, strict=True) for t in group}
        total = sum(t.data.size for group in groups for t in group)
        save_json(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    left_out = (INDEX, CONFIG, *(MISTRALS if list(folder.path.glob("consolidated*.safetensors")) else ()))
    for path in sorted(folder.path.iterdir()):
        if path.is_file() and path.suffix not in OTHER_WEIGHTS and path.name not in left_out:
            check_own(path)
            shutil.copyfile(path, partial / path.name)
    for path in partial.iterdir():
        sync_file(path)  # while the digests are still computed


def check_own(path: Path) -> None:
    """FileError for a link out of the folder that is copied: what a stranger's link names may not be theirs to give away.

    Hugging Face's cache has all files of a snapshot as links into the folder blobs next to it; these are its own.
    """
    home, target = path.parent.resolve(), path.resolve()
    if home not in target.parents and not (target.parent.name == "blobs" and target.parent.parent in home.parents):
        raise FileError(f"{path}: is a link out of its folder, to {target}; put the file itself there, or remove the link")


def sync_file(path: Path) -> None:
    """Write a file's data to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_apart(folder: Folder, out: Path) -> None:
    """FileError unless a folder can be written to `out`: it does not exist, or is empty, and is not inside the source."""
    if not out.parent.is_dir():
        raise FileError(f"{out}: the folder {out.parent} does not exist; make it first")
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise FileError(f"{out}: exists; give the copy another name")
    if folder.path.resolve() in out.resolve().parents:
        raise FileError(f"{out}: is in the folder being copied; give the copy another place")


def write_safetensors(out: BinaryIO, tensors: Sequence[FolderTensor], seen: Callable[[int], None]) -> None:
    """Write tensors as a safetensors file. A layer that runs twice is stored twice.

    Source: the format's README, github.com/huggingface/safetensors.
    """
    ends = np.cumsum([t.data.size for t in tensors]).tolist()
    entries = {
        t.name: {"dtype": t.type, "shape": list(t.shape), "data_offsets": [end - t.data.size, end]}
        for t, end in zip(tensors, ends, strict=True)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    out.write(struct.pack("<Q", len(header)) + header)
    for t in tensors:
        copy(t.data, out, seen)


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON value to a file."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_bytes(text.encode("utf-8", "backslashreplace"))  # halves of surrogate pairs as JSON escapes them
