"""A Hugging Face folder against its source."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import F
from ...errors import MetadataError, RefmodelError, TensorError
from ...hf.by_place.model_types import TABLES, model_type
from ...hf.by_place.rules import Fact
from ...hf.folder import CONFIG, ELSEWHERE, Folder, read_folder
from ...model.model import load
from ...model.route import Route
from ..copy_map import Plan, folder_plan
from ..hf_config import PER_LAYER, facts_of, not_run, routed_config
from ..hf_run import run_folders
from ..recipes import recipe_claims
from ..recover import Claim, claim, claims_of_name, claims_of_sources, recovery
from .beside import check_beside
from .common import Hashed, check_bytes, check_claims, check_seams, check_structure, decided, related
from .forward import bits, calls_of, check_forward
from .living import identity_blocks, living_on
from .meaning_folder import PLACE, by_default, said
from .report import BYTES, FORWARD, METADATA, SEAMS, STRUCTURE, Check, Options, Report


def verify_folder(report: Report, path: Path, source: Folder, words: str, options: Options) -> None:
    """Hold a folder against its source and write the checks into the report. RouteError for unreadable words."""
    given = Route.of(words, source.n_layer) if words else None
    structure = report.check(STRUCTURE)
    try:
        copy = read_folder(path)
        prefix = copy.prefix
        if prefix != source.prefix:
            copy, prefix = renamed(copy, source.prefix), source.prefix
            report.notes.append(f"its tensors have other names: {read_folder(path).prefix} where the source has {prefix}")
    except RefmodelError as error:
        structure.found(f"{CONFIG}: num_hidden_layers" if "num_hidden_layers" in str(error) else "the folder", str(error))
        report.skip([SEAMS, BYTES, METADATA, FORWARD], "the folder cannot be read")
        return
    check_packed(copy, source)
    found, ours, theirs = recovery(copy.tensors, source.tensors, (prefix, prefix), source.n_layer, source.behind)
    claims = claims_of_sources(lambda n: folder_claims(copy, source.path, n), report.counts or [source.n_layer])
    plan = decided(report, structure, given, found, claims, folder_plan(source, Route.identity(source.n_layer)))
    if plan is None:
        report.skip([SEAMS, BYTES, METADATA, FORWARD], "no route fits")
        return
    known = related(copy.tensors, source.tensors)
    retyped = check_structure(structure, plan, copy.tensors, source.tensors, known)
    check_head(structure, copy, source)
    check_seams(report, plan, found)
    check_bytes(report.check(BYTES), plan, Hashed(copy.tensors, ours), Hashed(source.tensors, theirs), known)
    identity_blocks(report, plan, copy.tensors)
    cannot_run = living_on(report, retyped, copy.tensors) or (not_run(source, plan) if options.transformers else "")
    metadata = report.check(METADATA)
    check_claims(metadata, report, claims, found, {"rys_relayer.layer_indices", "rys_relayer.spec"})
    check_config(metadata, report, copy, source, plan, bool(retyped))
    check_beside(metadata, report, copy, source)
    if options.transformers and not cannot_run:
        check_transformers(report.check(FORWARD), report, copy, source, plan, options, "float32" if retyped else "auto")
    elif cannot_run or not options.forward:
        report.skip([FORWARD], cannot_run or "left out by --no-forward")
    else:
        check_own(report, path, source, plan, options, bool(retyped))


def check_packed(copy: Folder, source: Folder) -> None:
    """TensorError for weights that are packed in one of the folders only, or in two ways: nothing compares their values."""
    if copy.packed_by != source.packed_by:
        is_, other = (folder.packed_by or "floats" for folder in (copy, source))
        raise TensorError(
            f"{copy.path}: its weights are {is_}, those of {source.path} {other}, and their values cannot be compared; "
            "verify the copy before it was quantized, or name a source of its kind"
        )


def check_own(report: Report, path: Path, source: Folder, plan: Plan, options: Options, widened: bool) -> None:
    """Run both folders here, where their class is known; otherwise the check is not done."""
    try:
        model = load(source.path)
    except RefmodelError as error:
        report.skip([FORWARD], f"refmodel does not run it ({error}); transformers does: --against transformers")
        return
    if model.n_layer != source.n_layer:
        report.skip([FORWARD], "the layers of several folders are not run together; route --recover tells where each is from")
        return
    check_forward(report.check(FORWARD), path, model, plan, options, widened)


def renamed(copy: Folder, prefix: str) -> Folder:
    """The folder with tensors named as in another class: `model.layers.` for `model.language_model.layers.`"""
    ours, theirs = (p.removesuffix("layers.").removesuffix("h.") for p in (copy.prefix, prefix))
    tensors = {}
    for name, t in copy.tensors.items():
        other = theirs + name.removeprefix(ours) if name.startswith(ours) and not ELSEWHERE.search(name) else name
        tensors[other] = replace(t, name=other)
    return replace(copy, tensors=tensors)


def check_head(check: Check, copy: Folder, source: Folder) -> None:
    """Check that a missing head is the embedding by the copy's configuration."""
    tied = any(home.get("tie_word_embeddings") for home in (copy.config, *copy.homes))
    missing = "lm_head.weight" in source.tensors and "lm_head.weight" not in copy.tensors
    if missing and not tied and not any(finding.where == "lm_head.weight" for finding in check.findings):
        check.found("lm_head.weight", "is missing, and tie_word_embeddings does not say that it is the embedding")


def check_transformers(
    check: Check, report: Report, copy: Folder, source: Folder, plan: Plan, options: Options, dtype: str
) -> None:
    """Run the source's layers in the route's order, and the copy, in transformers. All outputs of layers and logits must agree."""
    n_vocab = source.homes[-1].get("vocab_size")
    if not isinstance(n_vocab, int) or n_vocab < 1:
        raise MetadataError(f"{source.path / CONFIG}: vocab_size is {n_vocab or 'missing'}; expected a number; set it there")
    calls = calls_of(n_vocab, options)
    runs = run_folders(source.path, copy.path, plan.route.layers, calls, options.seen, dtype)
    rounded = not runs.refused and any(not equal_bits(a, runs.copy.get(name)) for name, a in runs.source.items())
    if rounded and dtype == "auto":  # a product of few bits may be rounded otherwise wherever its numbers are in memory
        runs = run_folders(source.path, copy.path, plan.route.layers, calls, options.seen, "float32")
    report.notes.append(f"both folders were run by {runs.who}" + (", in float32" if rounded or dtype == "float32" else ""))
    if runs.refused:
        check.found("loading", f"transformers does not run the copy: {runs.refused}")
        return
    worst = max(same_numbers(check, name, a, runs.copy.get(name)) for name, a in runs.source.items())
    if 0 < worst <= APART:
        report.notes.append(
            f"their outputs agree to float32's rounding, not to the last bit: apart by {worst:.1e} of the norm at most"
        )


APART = 1e-4  # of two runs in float32, relative: rounding leaves up to 2e-5 over 12 layers, another kind of layer more than 1e-2


def same_numbers(check: Check, name: str, a: F, b: F | None) -> float:
    """The distance of the copy's `b` from the source's `a`, relative to a's norm; a finding if it is more than float32 rounding.

    b is None if the copy has fewer layers.
    """
    check.compared += 1
    if b is None or a.shape != b.shape:
        check.found(name, "is missing: the copy has fewer layers" if b is None else f"has shape {b.shape}; expected {a.shape}")
        return np.inf
    if equal_bits(a, b):
        return 0.0
    apart = float(np.linalg.norm(a - b) / (np.linalg.norm(a) or 1.0))
    if not apart <= APART:
        check.found(name, f"differs by {apart:.1e} relative to its norm; float32's rounding leaves {APART:.0e}")
    return apart


def equal_bits(a: F, b: F | None) -> bool:
    """Whether both have one shape and the same bits; False for None."""
    return b is not None and a.shape == b.shape and np.array_equal(bits(a), bits(b))


def folder_claims(copy: Folder, source: Path, n_layer: int) -> list[Claim]:
    """What a folder says of its own route: in rys_relayer, in mergekit's recipe, and in its name."""
    block = copy.config.get("rys_relayer")
    block = block if isinstance(block, dict) else {}
    said = [claim(f"rys_relayer.{key}", block[key], n_layer) for key in ("layer_indices", "spec") if key in block]
    return [*said, *recipe_claims(copy, source, n_layer), *claims_of_name("the folder's name", copy.path.name, n_layer)]


def check_config(check: Check, report: Report, copy: Folder, source: Folder, plan: Plan, retyped: bool) -> None:
    """Check the configuration: the kinds of layers as the class reads them, everything else by its meaning."""
    try:
        expected = routed_config(source, plan)
    except MetadataError as error:
        cannot_say(check, report, copy, source, str(error))
        return
    right_home = expected if source.homes[-1] is source.config else expected["text_config"]
    name, facts = model_type(source.config, source.homes[-1]), facts_of(source)
    within = "" if copy.homes[-1] is copy.config else "text_config."
    check_facts(check, facts, copy, within, [fact.read(right_home, len(plan.route.layers)) for fact in facts])
    right, found = said(expected, name, right_home), said(copy.config, name, copy.homes[-1])
    by_facts = tuple(f"{within}{fact.name}" for fact in facts)
    if not (copy.config.get("architectures") and source.config.get("architectures")):  # null and an empty list name none, too
        right, found = ({k: v for k, v in said.items() if not k.startswith("architectures")} for said in (right, found))
        if not copy.config.get("architectures"):
            report.notes.append(f"{CONFIG} names no architectures: a loader that chooses by them does not know the copy")
    types = {dtype_of(copy), main_dtype(copy), *([dtype_of(source), *dtypes(right)] if retyped else [])}
    for key in sorted(right.keys() | found.keys()):
        if re.sub(PLACE, "", key) in by_facts:
            continue
        check.compared += 1
        missing, added = key not in found, key not in right
        if key.rpartition(".")[2] == "dtype" and (retyped or found.get(key) is None or right.get(key) is None):
            if not {said[key] for said in (found, right) if said.get(key) is not None} <= types:
                check.found(f"{CONFIG}: {key}", f"is {found.get(key)!r}; expected {' or '.join(map(repr, sorted(types)))}")
            continue
        if (missing and (by_default(key, right[key], name, copy.homes[-1]) or said_by(facts, key, copy))) or (
            added and by_default(key, found[key], name, right_home)
        ):
            continue
        if missing:
            check.found(f"{CONFIG}: {key}", f"is missing; expected {right[key]!r}")
        elif added:
            check.found(f"{CONFIG}: {key}", f"is {found[key]!r}; the source has no such value")
        elif found[key] != right[key]:
            check.found(f"{CONFIG}: {key}", f"is {found[key]!r}; along the map it should be {right[key]!r}")
    check_provenance(check, report, copy, source, expected["rys_relayer"])


DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def dtype_of(folder: Folder) -> str:
    """The dtype that transformers takes if the configuration says none: that of the first floats."""
    return next((DTYPES[t.type] for t in folder.tensors.values() if t.type in DTYPES), "float32")


def main_dtype(folder: Folder) -> str:
    """The dtype of most bytes: some classes keep a few tensors in float32."""
    sizes = Counter[str]()
    for t in folder.tensors.values():
        sizes[DTYPES.get(t.type, "")] += t.data.size
    del sizes[""]
    return max(sizes, key=lambda name: sizes[name], default="float32")


def dtypes(said: Mapping[str, Any]) -> set[str]:
    """The dtypes that a configuration names."""
    return {value for key, value in said.items() if key.rpartition(".")[2] == "dtype"}


def cannot_say(check: Check, report: Report, copy: Folder, source: Folder, why: str) -> None:
    """No configuration can express this route: a finding for a known model type, a skipped check for an unknown one."""
    name = model_type(source.config, source.homes[-1])
    if name in TABLES:
        check.found(f"{CONFIG}: num_hidden_layers", f"is {copy.n_layer}, but no copy of this model computes the route: {why}")
    else:
        check.skipped = f"what a right copy would say is not known: {why}"
        report.asked.add(check.name)


def said_by(facts: Sequence[Fact], key: str, copy: Folder) -> bool:
    """Whether a key that the copy lacks only served to derive a list that it has."""
    own = key.rpartition(".")[2]
    return any(own in fact.keys and fact.name in copy.homes[-1] for fact in facts)


def check_facts(check: Check, facts: Sequence[Fact], copy: Folder, within: str, right: Sequence[list[Any]]) -> None:
    """Check what each layer is, as transformers' class reads the copy."""
    home = copy.homes[-1]
    for fact, values in zip(facts, right, strict=True):
        check.compared += 1
        key = f"{CONFIG}: {within}{fact.name}"
        stated = home.get(fact.name)
        stated_n = len(stated) if isinstance(stated, list) else len(values)
        # transformers checks the length of kinds only
        fits = stated_n == len(values) if isinstance(values[0], str) else stated_n >= len(values)
        if fact.name in PER_LAYER and not fits:
            check.found(f"{key} (length)", f"is {stated_n}; along the map it should be {len(values)}")
            continue
        try:
            found = fact.read(home, len(values))
        except MetadataError as error:
            check.found(key, str(error))
            continue
        for layer, (a, b) in enumerate(zip(found, values, strict=False)):
            if a != b:
                by = "" if fact.name in home else f", by its place, as there is no {fact.name}"
                check.found(f"{key}[{layer}]", f"is {a!r}{by}; along the map it should be {b!r}")


def check_provenance(check: Check, report: Report, copy: Folder, source: Folder, expected: Mapping[str, Any]) -> None:
    """Check the counts of the rys_relayer block, if there is one. Another source's hash is noted: every tensor is compared."""
    block = copy.config.get("rys_relayer")
    if not isinstance(block, dict):
        report.notes.append(f"{CONFIG} has no rys_relayer block that says where the folder comes from")
        return
    for key in ("source_num_layers", "target_num_layers"):
        check.compared += 1
        right = report.counts if report.counts and key == "source_num_layers" else [expected[key]]
        if key in block and block[key] not in right:
            check.found(f"{CONFIG}: rys_relayer.{key}", f"is {block[key]!r}; expected {expected[key]!r}")
    hashes, stated = source.sha256(), block.get("source_sha256")
    if stated not in (None, hashes, *hashes.values()):
        report.notes.append(
            f"{CONFIG}: rys_relayer.source_sha256 is not that of this source: the copy was made from other files; "
            "if nothing else differs, the source was only saved again or split since"
        )
