"""(Model, Route) -> a GGUF with the route's blocks in order, and metadata that says so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gguf import GGUFValueType

from .. import __version__
from ..arch.keys import MAX_BLOCKS
from ..arch.kinds import Kinds, interval_in, interval_of
from ..errors import MetadataError, RouteError
from ..gguf.format import OURS, SCALARS
from ..gguf.metadata import Field
from ..gguf.reader import GgufFile
from ..gguf.tensor import AnyTensor
from ..gguf.writer import NO_LIMIT, Limit, field, write
from ..hf.by_place.llamacpp import NUMBERS
from ..machine.files import Beside
from ..model.model import Model
from ..model.route import Route
from .copy_map import Plan
from .runtimes import lost_by_count, one_kind

# What is known of the arrays below general.architecture. Any other stops the copy: it might belong to the blocks.
PER_BLOCK = {  # one value for each block, or one number for all
    "attention.head_count",
    "attention.head_count_kv",
    "attention.recurrent_layers",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
}


OF_THE_MODEL = {"rope.dimension_sections", "classifier.output_labels"}  # arrays of another meaning, whatever their length


EXTRA = "general.tensor_extra."  # lists about the tensors that general.tensor_extra.name names
GLOBAL_PREFIXES = ("general.", "tokenizer.", "quantize.")  # their arrays never belong to blocks


LAYOUTS = ("list", "interval")
WITHOUT = "run the route without a copy, with refmodel run --route"


def plan_of(model: Model, route: Route) -> Plan:
    """The plan of a copy of a GGUF, prediction blocks included."""
    return Plan(route, int(model.hp.n_nextn), "blk.")


def routed(
    model: Model,
    route: Route,
    out: Path,
    layout: str = "list",
    limit: Limit = NO_LIMIT,
    seen: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write the file that a runtime without routes needs to compute the route. Returns its path, or its first part's.

    layout  list: the kinds of a hybrid's blocks are listed; interval: an interval must give them too, for runtimes that
            know no list
    limit   of each part, if the file is to be split
    seen    gets the number of bytes just copied

    Tensors are copied byte for byte, blocks renumbered, per-block metadata follows its block, prediction (nextn) blocks
    stay last. RouteError for what llama.cpp cannot run, MetadataError for an array of unknown meaning or wrong length,
    FileError for a copy that would replace its source.
    """
    plan = plan_of(model, route)
    check_plan(model, plan, layout)
    fields = routed_fields(model, plan, layout)
    digest = Beside(model.file.sha256)  # hashes the source while it is copied

    def late() -> dict[str, Field]:
        model.file.check_unchanged()
        return {f"{OURS}source.sha256": text(digest.value())}

    return write(out, fields, routed_tensors(model.file, plan), late, limit, model.file.parts, seen)


def check_plan(model: Model, plan: Plan, layout: str) -> None:
    """RouteError for a copy that llama.cpp cannot run, or with layout interval a runtime that knows no list."""
    name = plan.route.canonical[:80]
    if len(plan.blocks) > MAX_BLOCKS:
        raise RouteError(
            f"route {name} makes a file of {len(plan.blocks)} blocks; llama.cpp loads at most {MAX_BLOCKS}; take a shorter route"
        )
    if kind := one_kind(model, plan):
        raise RouteError(
            f"route {name} keeps only {kind} blocks: llama.cpp aborts on a hybrid model with one kind of block, "
            "so there is nothing to compare with; the route itself runs with refmodel run --route"
        )
    if lost := lost_by_count(model, plan):
        raise RouteError(
            f"route {name}: {lost}. refmodel runs the route itself; for a copy take a route of {plan.n_source} blocks, "
            "which leaves out as many as it repeats"
        )
    if layout not in LAYOUTS:
        raise RouteError(f"--layout {layout}: expected {' or '.join(LAYOUTS)}; leave it out for list")
    how = model.arch.FACTS.kinds
    if layout == "interval" and how and not how.interval:
        raise RouteError(
            f"--layout interval: in {model.architecture} only {how.listed} says the kinds of blocks, and every runtime reads it; "
            "leave --layout out"
        )
    if layout == "interval" and how and written_interval(model, plan, how) is None:
        kinds = " ".join(model.kinds[layer][0].upper() for layer in plan.route.layers)
        raise RouteError(
            f"--layout interval: no interval makes the kinds of route {name} ({kinds}), so runtimes without "
            f"{how.listed} cannot load it; leave --layout out for those that read the list"
        )


def written_interval(model: Model, plan: Plan, how: Kinds) -> int | None:
    """The interval that gives the kinds of the copy's blocks, the source's own if it does; None if no interval does."""
    kinds = [model.kinds[layer] for layer in plan.route.layers]
    return interval_of(kinds, how.kind, interval_in(model.file.metadata, model.architecture, how))


def routed_tensors(file: GgufFile, plan: Plan) -> Iterator[AnyTensor]:
    """Each tensor of the copy: its source's bytes under its new name."""
    for name, source in plan.origins(file.tensors).items():
        yield replace(file.tensors[source], name=name)


def routed_fields(model: Model, plan: Plan, layout: str = "list") -> dict[str, Field]:
    """The copy's metadata: every key of the source, per-block arrays along the map, the kinds of blocks, provenance.

    MetadataError for a key that cannot follow the route.
    """
    arch, source = model.architecture, model.file.metadata
    out = {}
    for key, value in source.fields.items():
        if not key.startswith(("split.", OURS, EXTRA)):
            out[key] = routed_field(key, value, model, plan)
    out |= routed_extra(model, plan)
    if (how := model.arch.FACTS.kinds) and how.interval:  # numbers have followed their blocks already
        listed = plan.follow([*model.kinds, *[""] * plan.behind])
        out[f"{arch}.{how.listed}"] = field(GGUFValueType.ARRAY, [kind == how.kind for kind in listed], GGUFValueType.BOOL)
        if how.only and how.kind not in listed and f"{arch}.{how.only}" in out:
            out[f"{arch}.{how.only}"] = field(GGUFValueType.UINT32, 0)
        if layout == "interval":
            out[f"{arch}.{how.interval}"] = field(GGUFValueType.UINT32, written_interval(model, plan, how))
    return out | provenance(plan, "0" * 64)


def routed_extra(model: Model, plan: Plan) -> dict[str, Field]:
    """What is said of single tensors, by name, as the copy has it: each list along the map.

    MetadataError for lists that do not fit.

    Source: llama_prec_policy::load.
    """
    source = {key: value for key, value in model.file.metadata.fields.items() if key.startswith(EXTRA)}
    if not source:
        return {}
    lists = {key: list(value.value()) for key, value in source.items() if value.item is not None}
    named = lists.get(f"{EXTRA}name")
    if named is None or any(len(values) != len(named) for values in lists.values()) or len(lists) < len(source):
        raise MetadataError(
            f"{model.file.path}: {EXTRA}* has lists of unlike lengths; expected one value for each tensor of {EXTRA}name"
        )
    at = {name: i for i, name in enumerate(named)}
    kept = [(new, at[old]) for new, old in plan.origins(model.file.tensors).items() if old in at]
    out = {}
    for key, values in lists.items():
        moved = [new for new, _ in kept] if key == f"{EXTRA}name" else [values[i] for _, i in kept]
        texts_ = source[key].item == GGUFValueType.STRING
        out[key] = texts(moved) if texts_ else field(GGUFValueType.ARRAY, moved, source[key].item)
    return out


def routed_field(key: str, value: Field, model: Model, plan: Plan) -> Field:
    """One metadata value of the source as the copy has it. MetadataError for a value that cannot follow the route."""
    arch, where = model.architecture, model.file.path
    name = key.removeprefix(f"{arch}.") if key.startswith(f"{arch}.") else ""
    if name == "block_count":
        return field(GGUFValueType.UINT32, len(plan.blocks))
    if value.item is None:
        if name in NUMBERS - listed_kinds(model) and value.value() != 0 and not plan.route.is_identity:  # 0: no block is special
            raise MetadataError(
                f"{where}: {key} says what a block is by its place in the file; a route would make it wrong; {WITHOUT}"
            )
        return value
    if name in PER_BLOCK:
        if value.count != plan.n_source or value.item not in SCALARS:
            raise MetadataError(
                f"{where}: {key} has {value.count} values; "
                f"expected {plan.n_source} numbers, one for each block; convert the source again"
            )
        return field(GGUFValueType.ARRAY, plan.follow(value.value().tolist()), value.item)
    per_block = value.count in (plan.n_source, plan.route.n_layer)
    if name in OF_THE_MODEL or key.startswith(GLOBAL_PREFIXES) or (not name and not per_block):
        return value
    about = f"one value for each of {value.count} blocks" if per_block else f"{value.count} values"
    raise MetadataError(f"{where}: {key} has {about}, but its meaning is not known here, so it cannot follow the route; {WITHOUT}")


def listed_kinds(model: Model) -> set[str]:
    """The key in which a copy lists the kinds of its blocks, as a set of one; empty if there is none."""
    how = model.arch.FACTS.kinds
    return {how.listed} if how else set()


def provenance(plan: Plan, sha256: str) -> dict[str, Field]:
    """The metadata that says where a copy comes from; sha256 is the source's."""
    return {
        f"{OURS}version": text(__version__),
        f"{OURS}route": text(plan.route.canonical),
        f"{OURS}map": field(GGUFValueType.ARRAY, plan.route.layers, GGUFValueType.UINT32),
        f"{OURS}source.block_count": field(GGUFValueType.UINT32, plan.n_source),
        f"{OURS}source.sha256": text(sha256),
    }


def texts(values: list[str]) -> Field:
    """A metadata field that is a list of texts."""
    body = b"".join(len(raw).to_bytes(8, "little") + raw for raw in (value.encode() for value in values))
    head = int(GGUFValueType.STRING).to_bytes(4, "little") + len(values).to_bytes(8, "little")
    return Field(GGUFValueType.ARRAY, GGUFValueType.STRING, len(values), memoryview(head + body))


def text(value: str) -> Field:
    """A metadata field that is a text."""
    return field(GGUFValueType.STRING, value)
