"""A GGUF against its source."""

from pathlib import Path

import numpy as np
from gguf import GGUFValueType

from ...arch.kinds import Kinds, interval_in, interval_of
from ...errors import MetadataError, RefmodelError
from ...gguf.format import OURS
from ...gguf.metadata import Field
from ...gguf.reader import GgufFile
from ...hf.checkpoint import opened
from ...model.file_kind import refuse_other_kinds
from ...model.model import Model
from ...model.route import Route
from ..copy_map import Plan
from ..gguf import PER_BLOCK, plan_of, routed_fields
from ..recover import Claim, claim, claims_of_name, claims_of_sources, recovery
from ..runtimes import lost_by_count
from .common import Hashed, check_bytes, check_claims, check_seams, check_structure, decided
from .conversion import check_beyond, converted
from .forward import check_forward, check_llamacpp
from .living import identity_blocks, living_on
from .meaning_gguf import by_default, same
from .report import BYTES, FORWARD, LLAMACPP, METADATA, SEAMS, STRUCTURE, Check, Options, Report

# Keys that describe a file, or lay it out, and steer no logit; a copy may have its own. The general keys that steer are listed.
DESCRIBES = ("general.", "quantize.", OURS)
STEERS = ("general.architecture", "general.tensor_extra.")
READ = ("general.", "quantize.", "split.", "tokenizer.", OURS)  # besides the keys below general.architecture
NAMES = ("phi-3", "phi3", "modern-bert")  # parts of general.name by which llama.cpp strips white space next to special tokens


def verify_gguf(report: Report, path: Path, model: Model, words: str, options: Options) -> None:
    """Hold a GGUF against its source and write the checks into the report. RouteError for unreadable words."""
    given = model.route(words) if words else None
    structure = report.check(STRUCTURE)
    try:
        refuse_other_kinds(file := opened(path))
        arch = file.metadata.str("general.architecture")
        if arch != model.architecture:
            raise MetadataError(
                f"{path}: general.architecture is {arch}, the source's {model.architecture}; name the source that it was made from"
            )
    except RefmodelError as error:
        structure.found("the file", str(error))
        report.skip([SEAMS, BYTES, METADATA, FORWARD, *([LLAMACPP] if options.llamacpp else [])], "the file cannot be read")
        return
    options.seen("hashing")
    found, ours, theirs = recovery(file.tensors, model.file.tensors, ("blk.", "blk."), model.n_layer, int(model.hp.n_nextn))
    claims = claims_of_sources(lambda n: gguf_claims(file, n), report.counts or [model.n_layer])
    plan = decided(report, structure, given, found, claims, plan_of(model, Route.identity(model.n_layer)))
    if plan is None:
        report.skip([SEAMS, BYTES, METADATA, FORWARD, *([LLAMACPP] if options.llamacpp else [])], "no route fits")
        return
    known = converted(file, model)
    retyped = check_structure(structure, plan, file.tensors, model.file.tensors, known)
    check_counts(structure, file, model, plan)
    check_seams(report, plan, found)
    check_bytes(report.check(BYTES), plan, Hashed(file.tensors, ours), Hashed(model.file.tensors, theirs), known)
    report.notes += [f"{count} tensors differ {words}" for words, count in known.excused.items()]
    identity_blocks(report, plan, file.tensors)
    cannot_run = living_on(report, retyped, file.tensors)
    metadata = report.check(METADATA)
    check_claims(metadata, report, claims, found, {f"{OURS}route", f"{OURS}map"})
    check_gguf_metadata(metadata, report, file, model, plan)
    check_beyond(metadata, file, model)
    if lost := lost_by_count(model, plan):
        metadata.found(f"{arch}.block_count", f"is {len(plan.blocks)}: {lost}")
    if cannot_run or not options.forward:
        report.skip([FORWARD], cannot_run or "left out by --no-forward")
    else:
        check_forward(report.check(FORWARD), path, model, plan, options, bool(retyped), bool(known.excused))
    if options.llamacpp and not cannot_run:
        check_llamacpp(report.check(LLAMACPP), path, model, plan, options)
    elif options.llamacpp:
        report.skip([LLAMACPP], cannot_run)


def check_counts(check: Check, file: GgufFile, model: Model, plan: Plan) -> None:
    """Check the numbers of blocks in the metadata against the map."""
    for key, expected in (("block_count", len(plan.blocks)), ("nextn_predict_layers", plan.behind)):
        name = f"{model.architecture}.{key}"
        check.compared += 1
        try:
            found = file.metadata.int(name, 0)
        except MetadataError as error:
            check.found(name, str(error))
            continue
        if found != expected:
            check.found(name, f"is {found}; the route makes {expected}")


def gguf_claims(file: GgufFile, n_layer: int) -> list[Claim]:
    """What a GGUF says of its own route: in our keys, in general.name, and in the file's name."""
    md, out = file.metadata, []
    for key in (f"{OURS}map", f"{OURS}route"):
        if key in md:
            value = md[key]
            out.append(claim(key, value if isinstance(value, str) else np.asarray(value).tolist(), n_layer))
    name = md["general.name"] if "general.name" in md and isinstance(md["general.name"], str) else ""
    return [*out, *claims_of_name("general.name", name, n_layer), *claims_of_name("the file's name", file.path.name, n_layer)]


def check_gguf_metadata(check: Check, report: Report, file: GgufFile, model: Model, plan: Plan) -> None:
    """Check every key: per-block values by block, kinds as a runtime reads them, all others byte for byte."""
    arch = model.architecture
    expected, found = routed_fields(model, plan), file.metadata.fields
    kinds = model.arch.FACTS.kinds
    special = {f"{arch}.block_count", f"{arch}.nextn_predict_layers", f"{OURS}route", f"{OURS}map"}  # checked elsewhere
    if kinds and kinds.interval:
        special |= {f"{arch}.{kinds.interval}", f"{arch}.{kinds.listed}"}
        check_kinds(check, report, file, model, plan, kinds)
    for key, value in expected.items():
        if key in special:
            continue
        check.compared += 1
        name = key.removeprefix(f"{arch}.")
        if key == f"{OURS}source.sha256":
            note_source(report, key, found.get(key), model)
        elif foreign(key, arch):
            continue
        elif describes(key):
            check_description(check, report, key, found.get(key), value)
        elif name in PER_BLOCK:
            check_per_block(check, key, file, model, plan)
        elif key not in found:
            if not by_default(key, value, model):
                check.found(key, f"is missing; the source has {shown(value)}")
        elif not same(found[key], value):
            if not (by_default(key, found[key], model) and by_default(key, value, model)):
                check.found(key, unlike(found[key], value))
        elif (found[key].type, found[key].item) != (value.type, value.item):
            of = found[key].item or found[key].type
            report.notes.append(f"{key} is {of.name}, the source's {(value.item or value.type).name}: llama.cpp may want that type")
    for key in sorted(found.keys() - expected.keys() - special):
        if key.startswith("split.") or describes(key) or foreign(key, arch) or by_default(key, found[key], model):
            continue
        check.found(key, f"is {shown(found[key])}; the source has no such key")
    note_foreign(report, file, model)
    check_name(check, file, model)


def note_source(report: Report, key: str, found: Field | None, model: Model) -> None:
    """Note that the copy was made from another file. That is no fault: a source that was saved again or split has the same numbers,
    and every tensor and key is compared."""
    if found is not None and found.value() != model.file.sha256():
        report.notes.append(
            f"{key} is {str(found.value())[:12]}…, that of this source {model.file.sha256()[:12]}…: the copy was made from another "
            "file; if nothing else differs, the source was only saved again or split since"
        )


def foreign(key: str, arch: str) -> bool:
    """Whether a key is another program's own: llama.cpp reads none of its namespace in a model of this architecture."""
    return not key.startswith((*READ, f"{arch}."))


def note_foreign(report: Report, file: GgufFile, model: Model) -> None:
    """Note the keys of other programs that only one of the files has, or that say something else."""
    ours, theirs = file.metadata.fields, model.file.metadata.fields
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if foreign(key, model.architecture)]
    odd = [key for key in keys if key not in ours or key not in theirs or not same(ours[key], theirs[key])]
    if odd:
        listed = ", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
        report.notes.append(f"keys of other programs, by which nothing is computed, are not those of the source: {listed}")


def describes(key: str) -> bool:
    """Whether a key describes the file and steers no logit."""
    return key.startswith(DESCRIBES) and not key.startswith(STEERS)


def check_description(check: Check, report: Report, key: str, found: Field | None, value: Field) -> None:
    """Check a key that describes the file: one of ours must be right, others are noted."""
    if found is None or key == f"{OURS}version" or same(found, value):
        return
    if key == f"{OURS}source.block_count" and report.counts:
        behind = value.value() - sum(report.counts)  # of several sources the copy may be made of one
        if found.value() in [count + behind for count in report.counts]:
            return
    if key.startswith(OURS):
        check.found(key, f"is {shown(found)}; expected {shown(value)}")
    else:
        report.notes.append(f"{key} is {shown(found)}, the source's {shown(value)}; it steers no logits")


def check_name(check: Check, file: GgufFile, model: Model) -> None:
    """Check that the name does not make llama.cpp treat special tokens in another way. Source: llama_vocab::impl::load."""
    ours, theirs = (
        {part for part in NAMES if part in md.str("general.name", default="").lower()}
        for md in (file.metadata, model.file.metadata)
    )
    if ours != theirs:
        known = ", ".join(sorted(ours ^ theirs))
        check.found(
            "general.name",
            f"is {file.metadata.str('general.name', default='')!r}: by {known} in it llama.cpp strips spaces at special tokens",
        )


def shown(value: Field) -> str:
    """A metadata value in a message."""
    if value.item is None:
        return repr(value.value())[:60]
    return f"an array of {value.count} {value.item.name}"


def unlike(found: Field, value: Field) -> str:
    """A value and the source's in a message; of two lists of one length, the first items that differ."""
    if found.item is None or found.item != value.item or found.item == GGUFValueType.ARRAY or found.count != value.count:
        return f"is {shown(found)}; the source has {shown(value)}"
    pairs = enumerate(zip(found.value(), value.value(), strict=True))
    at, (ours, theirs) = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, (found, value)))
    return f"has {str(ours)[:60]!r} at {at}, of {found.count}; the source has {str(theirs)[:60]!r}"


def check_per_block(check: Check, key: str, file: GgufFile, model: Model, plan: Plan) -> None:
    """Check that new[p] == old[map[p]], value by value. The file may have one number for all blocks."""
    old = model.file.metadata.per_block(key, plan.n_source)
    try:
        new = file.metadata.per_block(key, len(plan.blocks))
    except MetadataError as error:
        check.found(key, str(error))
        return
    for position, (found, expected) in enumerate(zip(new, plan.follow(old), strict=True)):
        if found != expected:
            check.found(
                f"{key}[{position}]", f"is {found}; block {position} is source block {plan.blocks[position]}, which has {expected}"
            )


def check_kinds(check: Check, report: Report, file: GgufFile, model: Model, plan: Plan, how: Kinds) -> None:
    """Check that the kind of each block, as a runtime reads it from the list or the interval, is its source block's."""
    arch = model.architecture
    listed, interval = f"{arch}.{how.listed}", f"{arch}.{how.interval}"
    expected = [kind == how.kind for kind in plan.follow([*model.kinds, *[""] * plan.behind])]
    trunk = [model.kinds[layer] for layer in plan.route.layers]
    md, n = file.metadata, len(plan.blocks)
    check.compared += n
    try:
        stated, has_list = interval_in(md, arch, how), listed in md and md.fields[listed].item is not None
        if has_list:
            read_as, source = [bool(v) for v in md.per_block(listed, n)], listed
        else:
            read_as = [i < len(trunk) and (i + 1) % max(stated, 1) != 0 for i in range(n)]
            source = f"{interval} = {stated} (there is no {listed})"
    except MetadataError as error:
        check.found(listed, str(error))
        return
    for position, (found, right) in enumerate(zip(read_as, expected, strict=True)):
        if found != right:
            of = f"source block {plan.blocks[position]}"
            is_, not_ = (how.kind, f"no {how.kind}") if found else (f"no {how.kind}", how.kind)
            check.found(f"{listed}[{position}]", f"by {source} block {position} is {is_}; it is {of}, which is {not_}")
    known = {interval_in(model.file.metadata, arch, how), interval_of(trunk, how.kind, stated)}
    in_its_place = has_list and listed == interval  # then no interval is stated
    if stated not in known and not in_its_place:
        check.found(interval, f"is {stated}; the source has {interval_in(model.file.metadata, arch, how)}")
    if has_list and interval_of(trunk, how.kind, stated) != stated:
        report.notes.append(
            f"runtimes that derive kinds from {how.interval} = {stated} cannot run this file; those that read the list can"
        )
