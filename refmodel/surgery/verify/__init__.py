"""Proof that a file is what its route says: structure, seams, bytes, metadata, and the numbers that it computes.

What is expected comes from the same map and the same functions that write a copy; what is found comes from the file. A finding
names the tensor, the key or the position, what is there and what should be.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import FileError, RouteError
from ...hf.checkpoint import opened
from ...hf.folder import read_folder
from ...model.file_kind import refuse_other_kinds
from ...model.model import load
from ...model.route import Route
from .. import hf_runtimes
from ..copy_map import folder_plan
from ..gguf import plan_of
from ..recover import Claim, Recovery, claims_of_sources, recovery
from ..retyped import by_types
from ..runtimes import cost, runners
from .folder import folder_claims, verify_folder
from .gguf import gguf_claims, verify_gguf
from .joined import Sources, joined_folders, joined_models
from .living import accidents
from .report import FORWARD, LLAMACPP, MEANS, Options, Report

__all__ = ["MEANS", "Options", "Recovered", "Report", "foreseen", "recovered", "verify"]
DEFAULTS = Options()


def verify(out: Path, source: Path, route: str = "", options: Options = DEFAULTS, others: Sequence[Path] = ()) -> Report:
    """Hold a file, or a Hugging Face folder, against its source. Returns the proof, whatever is wrong with the copy.

    out     the copy
    route   words; empty: as recovered from the hashes
    others  further sources, if the copy has blocks of several

    RefmodelError for a source, words or a path that cannot be read, and for an option that does not fit the format.
    """
    check_there(out)
    for one in (source, *others) if others else ():
        check_alike(out, one)
    if others and (route or options.transformers):
        raise RouteError("a copy of several sources takes no --route and no --against transformers; leave them out")
    if out.is_dir() and options.llamacpp:
        raise FileError(f"{out}: llama.cpp runs GGUF files; folders take --against transformers")
    if options.transformers and not (source.is_dir() and out.is_dir()):
        raise FileError(f"{out}: transformers runs folders, the copy's and the source's; GGUF files take --against llamacpp")
    asked = {name for name, wanted in ((LLAMACPP, options.llamacpp), (FORWARD, options.transformers)) if wanted}
    report = Report(str(out), str(source), asked=asked)
    if others:
        verify_several(report, out, [source, *others], options)
    elif source.is_dir() and out.is_dir():
        verify_folder(report, out, read_folder(source), route, options)
    else:
        verify_gguf(report, out, load(source), route, options)
    return report


def verify_several(report: Report, out: Path, paths: Sequence[Path], options: Options) -> None:
    """Hold a copy against several sources; its route is written with the source of each block."""
    if out.is_dir():
        folder, sources = joined_folders(paths, read_folder(out))
        report.counts = sources.counts
        verify_folder(report, out, folder, "", options)
    else:
        model, sources = joined_models(paths, opened(out))
        report.counts = sources.counts
        verify_gguf(report, out, model, "", options)
    report.source = " and ".join(map(str, paths))
    report.notes.insert(0, sources.legend())
    if report.route:
        route = Route.of(report.route, sum(sources.counts))
        odd = accidents(route, (sum(sources.counts),))
        report.notes = [note for note in report.notes if note not in odd]
        report.notes += [] if report.intended else accidents(route, sources.counts)
        report.blocks = [(str(paths[number]), block) for number, block in map(sources.place, route.layers)]
        report.recovered = report.recovered and sources.words(Route.of(report.recovered, sum(sources.counts)))
        report.route = sources.words(route)


def check_alike(out: Path, source: Path) -> None:
    """FileError for a copy and one of its several sources that are a file and a folder."""
    if source.is_dir() != out.is_dir():
        raise FileError(f"{out} and {source}: expected GGUF files or folders; name sources of the copy's kind")


def check_there(out: Path) -> None:
    """FileError unless the copy exists."""
    if not out.exists():
        raise FileError(f"{out}: does not exist; check the path of the copy")


@dataclass(frozen=True)
class Recovered:
    """The route that the hashes say, and what the file claims."""

    recovery: Recovery
    claims: list[Claim]
    sources: Sources

    @property
    def lies(self) -> list[str]:
        """The claims that the hashes contradict, as sentences."""
        return [sentence for true, sentence in (c.verdict(self.recovery) for c in self.claims) if not true]

    @property
    def lines(self) -> list[str]:
        """One line for each block that is not whole, and for each claim."""
        odd = [f"! {m.describe()}" for m in self.recovery.trunk if not (m.sources or m.close)]
        several = [f"  {m.describe()}: the source has equal blocks" for m in self.recovery.trunk if len(m.sources) > 1]
        claims = [("  " if true else "! ") + sentence for true, sentence in (c.verdict(self.recovery) for c in self.claims)]
        legend = [f"  {self.sources.legend()}"] if len(self.sources.paths) > 1 else []
        close = sum(m.close for m in self.recovery.trunk)
        types = [f"  {close} tensors are in other types than the source's, within the error of these types"] if close else []
        return legend + types + odd + several + claims

    @property
    def words(self) -> str:
        """The route in words; with several sources, each with its blocks. `none` if there is no route."""
        route = self.recovery.route
        if route is None:
            return "none"
        return self.sources.words(route) if len(self.sources.paths) > 1 else route.canonical

    @property
    def status(self) -> int:
        """The exit status: 0 if every block is known and no claim is wrong, 1 otherwise."""
        return 0 if self.recovery.known and not self.lies else 1

    def as_json(self) -> dict[str, Any]:
        """The same for --json."""
        route = self.recovery.route
        return {
            "route": route and self.words,
            "map": route and list(route.layers),
            "sources": [str(path) for path in self.sources.paths],
            "places": [None if block is None else self.sources.place(block) for block in self.recovery.partial],
            "partial": self.recovery.partial,
            "exact": self.recovery.exact,
            "blocks": [asdict(match) for match in self.recovery.matches],
            "lies": self.lies,
        }


def recovered(out: Path, source: Path, others: Sequence[Path] = ()) -> Recovered:
    """Find the route of a file or folder only from the hashes of its tensors. RefmodelError if one cannot be read.

    others  further sources, if the copy has blocks of several
    """
    check_there(out)
    paths = [source, *others]
    for one in paths if others else ():
        check_alike(out, one)
    if source.is_dir() and out.is_dir():
        copy = read_folder(out)
        held, sources = joined_folders(paths, copy)
        prefixes = (copy.prefix, held.prefix)
        found, _, _ = recovery(copy.tensors, held.tensors, prefixes, held.n_layer, held.behind)
        found = by_types(found, copy.tensors, held.tensors, prefixes)
        return Recovered(found, claims_of_sources(lambda n: folder_claims(copy, held.path, n), sources.counts), sources)
    refuse_other_kinds(file := opened(out))
    model, sources = joined_models(paths, file)
    found, _, _ = recovery(file.tensors, model.file.tensors, ("blk.", "blk."), model.n_layer, int(model.hp.n_nextn))
    found = by_types(found, file.tensors, model.file.tensors, ("blk.", "blk."))
    return Recovered(found, claims_of_sources(lambda n: gguf_claims(file, n), sources.counts), sources)


def foreseen(source: Path, words: str) -> dict[str, Any]:
    """What a route makes of a model, before anything is written: the route, who can run the copy, and its cost.

    RouteError for unreadable words; MetadataError for a folder that cannot follow the route.
    """
    if source.is_dir():
        folder = read_folder(source)
        route = Route.of(words, folder.n_layer)
        plan = folder_plan(folder, route)
        who, bytes_ = hf_runtimes.runners(folder, plan), hf_runtimes.cost(folder, plan)  # or what could not follow the route
        return route.describe() | {"runners": [asdict(runner) for runner in who], "cost": bytes_}
    model = load(source)
    route = model.route(words)
    plan = plan_of(model, route)
    return route.describe() | {"runners": [asdict(runner) for runner in runners(model, plan)], "cost": cost(model, plan)}
