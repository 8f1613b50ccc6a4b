"""A Hugging Face folder against its source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FileError, MetadataError, RefmodelError
from ...model.route import Route
from ..copy_map import Plan
from ..hf_config import routed_config
from ..hf_read import CONFIG, Folder, read_folder
from ..hf_run import run_folders
from ..recover import Claim, claim, claims_of_name, digests, recover
from .common import check_bytes, check_claims, check_seams, check_structure, decided
from .forward import calls_of, same_bits
from .report import BYTES, FORWARD, METADATA, SEAMS, STRUCTURE, Check, Options, Report


def verify_folder(report: Report, path: Path, source: Folder, words: str, options: Options) -> None:
    given = Route.of(words, source.n_layer) if words else None
    structure = report.check(STRUCTURE)
    try:
        copy = read_folder(path)
        prefix = copy.prefix
        if prefix != source.prefix:
            raise FileError(f"{path}: its layers stand under {prefix}, the source's under {source.prefix}")
    except RefmodelError as error:
        structure.found("the folder", str(error))
        report.skip([SEAMS, BYTES, METADATA, FORWARD], "the folder cannot be read")
        return
    ours, theirs = digests(copy.tensors), digests(source.tensors)
    found = recover(ours, theirs, (prefix, prefix), source.n_layer, source.behind)
    claims = folder_claims(copy, source.n_layer)
    plan = decided(report, structure, given, found, claims, source.plan(Route.identity(source.n_layer)))
    if plan is None:
        report.skip([SEAMS, BYTES, METADATA, FORWARD], "no route fits")
        return
    check_structure(structure, plan, copy.tensors, source.tensors)
    check_seams(report, plan, found)
    check_bytes(report.check(BYTES), plan, ours, theirs)
    metadata = report.check(METADATA)
    check_claims(metadata, report, claims, found, {"rys_relayer.layer_indices", "rys_relayer.spec"})
    check_config(metadata, report, copy, source, plan)
    if options.transformers:
        check_transformers(report.check(FORWARD), report, copy, source, plan, options)
    else:
        report.skip([FORWARD], "a folder is run by transformers: --against transformers")


def check_transformers(check: Check, report: Report, copy: Folder, source: Folder, plan: Plan, options: Options) -> None:
    """transformers runs the source's layers in the route's order, and the copy; every layer's output and the logits agree."""
    n_vocab = source.homes[-1].get("vocab_size")
    if not isinstance(n_vocab, int) or n_vocab < 1:
        raise MetadataError(f"{source.path / CONFIG}: vocab_size is {n_vocab or 'missing'}; expected a number")
    runs = run_folders(source.path, copy.path, plan.route.layers, calls_of(n_vocab, options), options.seen)
    report.notes.append(f"both folders were run by {runs.who}")
    if runs.refused:
        check.found("loading", f"transformers does not run the copy: {runs.refused}")
        return
    for name, a in runs.source.items():
        if name in runs.copy:
            same_bits(check, name, a, runs.copy[name])
        else:
            check.found(name, "is missing: the copy has fewer layers")


def folder_claims(copy: Folder, n_layer: int) -> list[Claim]:
    block = copy.config.get("rys_relayer")
    block = block if isinstance(block, dict) else {}
    said = [claim(f"rys_relayer.{key}", block[key], n_layer) for key in ("layer_indices", "spec") if key in block]
    return [*said, *claims_of_name("the folder's name", copy.path.name, n_layer)]


def check_config(check: Check, report: Report, copy: Folder, source: Folder, plan: Plan) -> None:
    """The configuration, value by value."""
    expected = routed_config(source, plan)
    right = dict(leaves(expected, ""))
    found = dict(leaves(copy.config, ""))
    for name in sorted(right.keys() | found.keys()):
        if name.startswith(("rys_relayer", "_name_or_path", "transformers_version")):
            continue  # claims are checked elsewhere, the others steer nothing
        check.compared += 1
        if name not in found:
            check.found(f"{CONFIG}: {name}", f"is missing; expected {right[name]!r}")
        elif name not in right:
            check.found(f"{CONFIG}: {name}", f"is {found[name]!r}; the source has no such value")
        elif found[name] != right[name]:
            check.found(f"{CONFIG}: {name}", f"is {found[name]!r}; along the map it should be {right[name]!r}")
    block = copy.config.get("rys_relayer")
    if isinstance(block, dict):
        for key in ("source_num_layers", "target_num_layers"):
            check.compared += 1
            if key in block and block[key] != expected["rys_relayer"][key]:
                check.found(f"{CONFIG}: rys_relayer.{key}", f"is {block[key]!r}; expected {expected['rys_relayer'][key]!r}")
    else:
        report.notes.append(f"{CONFIG} has no rys_relayer block that says where the folder comes from")


def leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Path -> value of everything in a JSON value that is no container."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list) and value:
        yield f"{where} (length)", len(value)
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{where}[{i}]")
    else:
        yield where, value
