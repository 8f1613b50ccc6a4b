"""The checks that any checkpoint undergoes, whatever its format: structure, seams, bytes, and what it claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...gguf.format import OURS
from ...model.route import Route
from ..copy_map import Plan, block_of
from ..recover import Claim, Recovery, Stored
from .report import SEAMS, Check, Report


def decided(
    report: Report, structure: Check, given: Route | None, found: Recovery, claims: Sequence[Claim], whole: Plan
) -> Plan | None:
    """The plan to hold the file against: the route that was given, else what the hashes say, else what the file claims."""
    report.recovered = found.route.canonical if found.route else ""
    claimed = next((r for c in claims if c.where.startswith(OURS) for r in c.routes.values() if isinstance(r, Route)), None)
    choices = (
        (given, "given"),
        (found.route if found.exact else None, "recovered from the hashes"),
        (claimed, "claimed by the file, as the hashes leave it open"),
        (found.route, "nearest to the hashes"),
    )
    for route, origin in choices:
        if route is not None:
            report.route, report.origin = route.canonical, origin
            return Plan(route, whole.behind, whole.prefix)
    odd = next((m for m in found.trunk if not m.likely), None)
    structure.found("the blocks", odd.describe() if odd else "there are none that this source has")
    return None


def check_structure(check: Check, plan: Plan, ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> None:
    """Every expected tensor once, in the type and shape of its source, and no others."""
    expected = plan.origins(theirs)
    for name, source in expected.items():
        check.compared += 1
        if name not in ours:
            check.found(name, f"is missing; it should be a copy of {source}")
            continue
        for what, a, b in (("shape", ours[name].shape, theirs[source].shape), ("type", ours[name].type, theirs[source].type)):
            if a != b:
                check.found(name, f"has {what} {word(a)}; {source} has {word(b)}")
    for name in ours:
        if name not in expected:
            number = block_of(name, plan.prefix)
            beyond = number is not None and number >= len(plan.blocks)
            check.found(name, f"is not expected; the route has blocks 0 to {len(plan.blocks) - 1}" if beyond else "is not expected")


def word(value: Any) -> str:
    return str(getattr(value, "name", value))


def check_seams(report: Report, plan: Plan, found: Recovery) -> None:
    """On both sides of each jump: is it the block that the route says?"""
    check, matches = report.check(SEAMS), {m.block: m for m in found.matches}
    for position, source in plan.route.seams:
        check.compared += 1
        right = position in matches and source in matches[position].likely
        report.seams.append((position, source, right))
        if not right:
            is_ = matches[position].describe() if position in matches else f"there is no block {position}"
            check.found(f"position {position}", f"should run source block {source}, but {is_}")


def check_bytes(check: Check, plan: Plan, ours: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    """Every tensor's hash is that of its source tensor; where it is not, whose it is."""
    holders: dict[str, list[str]] = {}
    for name, digest in theirs.items():
        holders.setdefault(digest, []).append(name)
    for name, source in plan.origins(theirs).items():
        if name not in ours:
            continue  # said by the structure
        check.compared += 1
        if ours[name] != theirs[source]:
            whose = holders.get(ours[name])
            is_ = f"has the bytes of {' or '.join(whose[:3])}" if whose else "has bytes that no tensor of the source has"
            check.found(name, f"{is_}; it should have those of {source}")


def check_claims(check: Check, report: Report, claims: Sequence[Claim], found: Recovery, binding: set[str]) -> None:
    """What the file says about its own route; a name may be in a mess, a key may not lie."""
    for c in claims:
        check.compared += 1
        true, sentence = c.verdict(found)
        if true or c.where not in binding:
            report.notes.append(sentence)
        else:
            check.found(c.where, sentence.removeprefix(f"{c.where} "))
