"""The checks that any checkpoint undergoes, whatever its format: structure, seams, bytes, and what it claims."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...gguf.format import OURS
from ...model.route import Route
from ..copy_map import Plan, block_of
from ..parts import part_of
from ..recipes import MERGEKIT
from ..recover import Claim, Recovery
from ..values import Error, Stored, decodes, error, flat, relation, word
from .living import accidents
from .report import SEAMS, Check, Report

CLAIMING = (OURS, "rys_relayer.", MERGEKIT)  # keys, or a file next to it, in which a file says its own route


@dataclass(frozen=True)
class Hashed:
    """The tensors of a file, and their digests by name."""

    tensors: Mapping[str, Stored]
    hashes: Mapping[str, str]


def nothing(name: str, source: str) -> str:
    """No excuse."""
    return ""


@dataclass(frozen=True)
class Differences:
    """What is known of tensors that differ, each called with the name in the copy and in the source.

    explain  what became of the source's tensor, in words; empty if that is not known
    excuse   why it may differ although nothing is wrong; empty if it may not
    excused  the excuses that were found, and how often
    """

    explain: Callable[[str, str], str]
    excuse: Callable[[str, str], str] = nothing
    excused: Counter[str] = field(default_factory=Counter)

    def excuses(self, name: str, source: str) -> bool:
        """Whether there is an excuse; it is counted."""
        words = self.excuse(name, source)
        self.excused.update([words] if words else [])
        return bool(words)


def related(ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> Differences:
    """Differences by the values of the two tensors only."""
    return Differences(lambda name, source: relation(ours[name], theirs[source], source))


def decided(
    report: Report, structure: Check, given: Route | None, found: Recovery, claims: Sequence[Claim], whole: Plan
) -> Plan | None:
    """The plan to hold the file against: the given route, or what the file claims if the hashes allow it, or what the hashes say.

    None, with a finding, if there is no route.
    """
    report.recovered = found.route.canonical if found.route else ""
    said = [r for c in claims if c.where.startswith(CLAIMING) for r in c.routes.values() if isinstance(r, Route)]
    true = next((r for r in said if found.fits(r)), None)
    choices = (
        (given, "given"),
        (true, "claimed by the file, and by the hashes"),
        (found.route if found.exact else None, "recovered from the hashes"),
        (next(iter(said), None), "claimed by the file, as the hashes leave it open"),
        (found.route, "nearest to the hashes"),
    )
    for route, origin in choices:
        if route is not None:
            report.route, report.origin = route.canonical, origin
            report.intended = origin.startswith(("given", "claimed"))
            if not report.intended:
                report.notes += [
                    "the route is read from the copy itself, which proves no intention",
                    *accidents(route, (route.n_layer,)),
                ]
            return Plan(route, whole.behind, whole.prefix)
    odd = next((m for m in found.trunk if not m.likely), None)
    structure.found("the blocks", odd.describe() if odd else "there are none that this source has")
    return None


def check_structure(
    check: Check, plan: Plan, ours: Mapping[str, Stored], theirs: Mapping[str, Stored], known: Differences
) -> dict[str, Error]:
    """Check that every expected tensor is there, in the shape of its source, and no other.

    known  of tensors that differ

    Returns the tensors in another type whose values are the source's within that type's error, with that error.
    """
    expected, retyped = plan.origins(theirs), dict[str, Error]()
    for name, source in expected.items():
        check.compared += 1
        if name not in ours:
            if not spared(name, theirs):
                check.found(name, f"is missing; it should be a copy of {source}")
            continue
        a, b = ours[name], theirs[source]
        if flat(a.shape) != flat(b.shape):
            part = part_of(a, b, source)
            check.found(name, f"has shape {a.shape}; {source} has {b.shape}" + also(part or known.explain(name, source)))
        elif a.type != b.type:
            check_type(check, retyped, (name, source), a, b, known)
    for name in ours:
        if name not in expected and not spared(name, ours):
            number = block_of(name, plan.prefix)
            beyond = number is not None and number >= len(plan.blocks)
            check.found(name, f"is not expected; the route has blocks 0 to {len(plan.blocks) - 1}" if beyond else "is not expected")
    return retyped


def also(words: str) -> str:
    """Words at the end of a finding, if there are any."""
    return f"; {words}" if words else ""


def check_type(check: Check, retyped: dict[str, Error], names: tuple[str, str], a: Stored, b: Stored, known: Differences) -> None:
    """Check a tensor in another type than its source: its values must be the source's within that type's error."""
    name, source = names
    said = f"has type {word(a.type)}; {source} has {word(b.type)}"
    if not (decodes(a.type) and decodes(b.type)):
        check.found(name, f"{said}, and its values cannot be compared")
        return
    apart = error(a, b)
    if apart.within(a.type):
        retyped[name] = apart
        return
    off = apart.describe(a.type)
    check.found(name, f"{said}, and its values are not those of {source}: {off}" + also(known.explain(name, source)))


TIED = {"output.weight": "token_embd.weight", "lm_head.weight": "embed_tokens.weight"}
BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$")  # computed, and saved by old versions only


def spared(name: str, tensors: Mapping[str, Stored]) -> bool:
    """Whether a tensor may be missing or extra: a head that is the embedding, or a computed buffer."""
    if BUFFERS.search(name):
        return True
    embedding = next((t for other, t in tensors.items() if name in TIED and other.endswith(TIED[name])), None)
    return embedding is not None and name in tensors and np.array_equal(embedding.data, tensors[name].data)


def check_seams(report: Report, plan: Plan, found: Recovery) -> None:
    """Check both sides of each jump: is it the block that the route says? Elsewhere a whole block of another place is named."""
    check, matches = report.check(SEAMS), {m.block: m for m in found.matches}
    seams = dict(plan.route.seams)
    for position, source in enumerate(plan.route.layers):
        match = matches.get(position)
        right = match is not None and source in match.likely
        if position in seams:
            check.compared += 1
            report.seams.append((position, source, right))
        if not right and (position in seams or (match is not None and match.sources)):
            is_ = match.describe() if match else f"there is no block {position}"
            check.found(f"position {position}", f"should run source block {source}, but {is_}")


def alike(a: Stored, b: Stored) -> bool:
    """Whether two tensors have the same type and shape."""
    return bool(a.type == b.type) and flat(a.shape) == flat(b.shape)


def check_bytes(check: Check, plan: Plan, ours: Hashed, theirs: Hashed, known: Differences) -> None:
    """Check that every tensor's hash is its source's; a finding says whose it is instead, or what became of it."""
    holders: dict[str, list[str]] = {}
    for name, digest in theirs.hashes.items():
        holders.setdefault(digest, []).append(name)
    for name, source in plan.origins(theirs.hashes).items():
        if name not in ours.hashes or not alike(ours.tensors[name], theirs.tensors[source]):
            continue  # said by the structure
        check.compared += 1
        if ours.hashes[name] != theirs.hashes[source] and not known.excuses(name, source):
            whose = holders.get(ours.hashes[name])
            is_ = f"has the bytes of {' or '.join(whose[:3])}" if whose else "has bytes that no tensor of the source has"
            now = "" if whose else known.explain(name, source)
            check.found(name, f"{is_}; it should have those of {source}" + (f". They are: {now}" if now else ""))


def check_claims(check: Check, report: Report, claims: Sequence[Claim], found: Recovery, binding: set[str]) -> None:
    """Check what the file says about its own route. A wrong name is a note, a wrong key a finding.

    binding  the keys that must be right
    """
    for c in claims:
        check.compared += 1
        true, sentence = c.verdict(found)
        if true or c.where not in binding:
            report.notes.append(sentence)
        else:
            check.found(c.where, sentence.removeprefix(f"{c.where} "))
