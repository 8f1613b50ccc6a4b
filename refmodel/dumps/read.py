"""Any dump, recognised by what is in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DumpError, RefmodelError
from ..machine.boundary import expecting, from_json
from ..machine.files import check_regular, contents, text_of
from . import aprt, eval_callback, kld_base, logit_text, module_debugger, npy, raw, results_gguf, save_logits
from .dump import Dump, Numbers
from .safetensors_file import provenance, read_safetensors

DEPTH = 3  # folders below a dump's
TOKENS = ("tokens", "token_ids", "input_ids", "input_tokens", "inp_tokens")  # files or arrays that have the run's token ids
PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
SAFETENSORS = b"{"  # after the header's length, eight bytes
CONVERT = "torch.load(path) and safetensors.torch.save_file({name: x.contiguous() for name, x in dump.items()}, 'dump.safetensors')"


def read(path: Path) -> Dump:
    """The dump in a file or a folder.

    DumpError if its format is not known, it is damaged, or it is a model; the message says what to do.
    """
    with expecting(str(path), DumpError, "docs/formats.md lists the formats"):
        found = with_its_tokens(read_folder(path) if path.is_dir() else read_file(path))
    if not found.arrays and not found.answer:
        listed = "; ".join(f"{name} ({why})" for name, why in list(found.unread.items())[:3])
        raise DumpError(
            f"{path}: has no array that can be read{': ' + listed if listed else ''}; docs/formats.md lists the formats"
        )
    return with_provenance(found)


def with_provenance(dump: Dump) -> Dump:
    """The dump with what a trace says of its run. DumpError if its tokens are not lists of numbers."""
    said = provenance(dict(dump.about))
    if not said:
        return dump
    calls = said.get("calls")
    try:
        calls = dump.calls if calls is None else [[int(t) for t in call] for call in calls]
    except (TypeError, ValueError):
        raise DumpError(
            f"{dump.path}: its provenance has no lists of token ids under calls; write it as docs/formats.md says"
        ) from None
    words: dict[str, str] = {key: str(said[key]) for key in ("sha256", "route", "numerics") if key in said}
    return replace(dump, calls=calls, about={**words, "who": str(said.get("who", said.get("producer", dump.path)))})


def with_its_tokens(dump: Dump) -> Dump:
    """The dump with its array of token ids, as an archive next to its activations has one, as the tokens that it ran."""
    ids = {name: x for name, x in dump.arrays.items() if name.rpartition(".")[2] in TOKENS and x.dtype[0] in "IU" and x.whole}
    arrays = {name: x for name, x in dump.arrays.items() if name not in ids}
    return replace(dump, arrays=arrays, calls=dump.calls or id_rows(next(iter(ids.values())))) if ids else dump


def id_rows(ids: Numbers) -> list[list[int]]:
    """An array of token ids as lists: one for each call."""
    return [[int(t) for t in row] for row in ids.read().reshape(-1, ids.shape[-1] if ids.shape else 1)]


def read_file(path: Path) -> Dump:
    """The dump in one file. DumpError as for `read`."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise DumpError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    if start.startswith(npy.MAGIC):
        return read_token_array(path) if is_tokens(path) else npy.read_npy(path)
    if start.startswith(npy.ZIP):
        refuse_torch(path)
        return npy.read_npz(path)
    if start.startswith(PICKLED):
        raise DumpError(f"{path}: is a pickle, which can run code and is not read; convert it: {CONVERT}")
    for magic, reader in (
        (aprt.MAGIC, aprt.read_aprt),
        (kld_base.MAGIC, kld_base.read_kld_base),
        (b"GGUF", results_gguf.read_results),
    ):
        if start.startswith(magic):
            return reader(path)
    if start[8:9] == SAFETENSORS and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return read_safetensors(path)
    if save_logits.is_saved(path):
        return save_logits.read_saved(path)
    return read_words(path, start)


def read_words(path: Path, start: bytes) -> Dump:
    """The dump in a text file. DumpError if it is none, or not one that is known."""
    if b"\0" in start:
        raise DumpError(
            f"{path}: is of no known format; write .npy files, or an index.json that names its arrays (docs/formats.md)"
        )
    if start.lstrip()[:1] in (b"{", b"["):
        if raw.is_index(path):
            return raw.read_indexed(path)
        if path.name.endswith(module_debugger.ENDING):
            return module_debugger.read_tree(path)
        if found := logit_text.read_json(path):
            return found
        raise DumpError(f"{path}: is JSON without logits, logprobs or an answer of a server; docs/formats.md lists what is read")
    if eval_callback.looks_like(text_of(path, errors="replace")):
        return eval_callback.read_log(path)
    return logit_text.read_text(path)


def refuse_torch(path: Path) -> None:
    """DumpError for a zip that torch.save wrote."""
    with path.open("rb") as file:
        start = file.read(1 << 12)
    if b"data.pkl" in start or b"/version" in start or b".data/" in start:
        raise DumpError(f"{path}: was written by torch.save, a pickle, which can run code and is not read; convert it: {CONVERT}")


def read_folder(path: Path) -> Dump:
    """All dumps in a folder as one. DumpError for the folder of a model, or two arrays of one name."""
    if (path / "config.json").is_file() and any(holds_weights(shard) for shard in sorted(path.glob("*.safetensors"))[:1]):
        raise DumpError(f"{path}: is the folder of a model, not a dump; name a folder with arrays of a run")
    if trees := module_debugger.trees(path):
        return module_debugger.read_tree(trees[0])
    for index in (path / name for name in raw.INDEXES):
        if index.is_file() and raw.is_index(index):
            return raw.read_indexed(index)
    arrays: dict[str, Numbers] = {}
    unread: dict[str, str] = {}
    calls: Sequence[Sequence[int]] | None = None
    about, kinds, printed = dict[str, str](), list[str](), False
    for file in files(path):
        name = file.relative_to(path)
        if save_logits.is_companion(file):
            continue
        if is_tokens(file) and (ids := token_ids(file)) is not None:
            calls = ids
            continue
        try:
            part = read_file(file)
        except DumpError as error:
            if fatal(file):
                raise
            unread[str(name)] = str(error).partition(": ")[2]
            continue
        for own, array in named(part, name).items():
            if own in arrays:
                raise DumpError(f"{path}: has two arrays named {own}, the second in {name}; keep one")
            arrays[own] = array
        calls, about, printed = calls or part.calls, {**about, **part.about}, printed or part.printed
        kinds += [part.kind] * (part.kind not in kinds)
    return Dump(
        path, f"a folder with {' and '.join(kinds[:2]) or 'nothing that can be read'}", arrays, calls, about, unread, printed
    )


def fatal(file: Path) -> bool:
    """Whether a file of a folder that cannot be read ends the command: one that holds arrays, and not a text next to them."""
    return file.suffix in (".npy", ".npz", ".safetensors", ".pt", ".pth", ".pkl", ".bin") and not is_tokens(file)


def files(path: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, in order; names that begin with a dot are passed over."""
    for file in sorted(path.rglob("*")):
        inner = file.relative_to(path).parts
        if file.is_file() and len(inner) <= DEPTH and not any(part.startswith(".") for part in inner):
            yield file


def named(part: Dump, file: Path) -> Mapping[str, Numbers]:
    """The arrays of one file of a folder, by names that say which file it was.

    A file of one array gives it its own name, after those of the folders that it is in; text of logits is `logits`.
    """
    folders = ".".join(file.parent.parts)
    if part.kind == "an APRT file" or part.printed:
        return part.arrays
    if len(part.arrays) == 1 and next(iter(part.arrays)) == file.stem:
        return {f"{folders}.{file.stem}" if folders else file.stem: next(iter(part.arrays.values()))}
    return {f"{folders}.{name}" if folders else name: array for name, array in part.arrays.items()}


def is_tokens(path: Path) -> bool:
    """Whether a file's name says that it has the tokens."""
    return path.stem in TOKENS or path.name.endswith(save_logits.TOKENS)


def token_ids(path: Path) -> list[list[int]] | None:
    """The token ids of a file, a list for each call; None if it has none that can be read."""
    try:
        if path.name.endswith(".npy"):
            ids = npy.array(path)
            values: Any = id_rows(ids) if ids.dtype[0] in "IU" else None
        elif path.suffix == ".bin":
            values = np.frombuffer(contents(path), "<i4").tolist()
        else:
            text = text_of(path)
            listed = text if text.lstrip()[:1] in ("[", "{") else f"[{','.join(text.replace(',', ' ').split())}]"
            values = from_json(listed, str(path), DumpError, "write a list of token ids")
            values = values.get("tokens", values.get("ids")) if isinstance(values, dict) else values
        values = values if values and isinstance(values[0], list) else [values]
        return [[int(t) for t in call] for call in values]
    except (ValueError, TypeError, AttributeError, OverflowError, RefmodelError):
        return None


def read_token_array(path: Path) -> Dump:
    """A .npy with tokens, given as if it were a dump. DumpError, always."""
    raise DumpError(f"{path}: has token ids, no activations; name the folder that it is in")


def holds_weights(path: Path) -> bool:
    """Whether a safetensors file has a model's weights."""
    return any(name.endswith(("norm.weight", "proj.weight", "embed_tokens.weight")) for name in read_safetensors(path).arrays)
