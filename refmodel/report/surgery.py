"""Routes, copies and proofs, as tables."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..surgery.verify import Recovered, Report
from .tables import pairs, plain_table


def route(console: Console, described: Mapping[str, Any]) -> None:
    """Print a route: its map in words, its seams, and its other notations."""
    n, positions = described["source_layers"], described["positions"]
    console.print(
        pairs(
            {
                "positions": f"{positions} of {n} source blocks, {described['overhead_percent']:+g} %",
                "skipped": ", ".join(map(str, described["skipped"])) or "none",
                "map": " ".join(map(str, described["map"])),
                **described["notations"],
            }
        )
    )
    table = plain_table("seam: position", "source block")
    for position, source in described["seams"]:
        table.add_row(str(position), str(source))
    console.print(table if described["seams"] else "no seams: the blocks run in their own order")


def copied(console: Console, done: Mapping[str, Any]) -> None:
    """Print what was written, and the command that proves it."""
    hashes = done["source_sha256"]
    if isinstance(hashes, Mapping):  # a folder's: one for each file
        hashes = ", ".join(f"{digest[:12]}… ({name})" for name, digest in hashes.items())
    console.print(
        pairs(
            {
                "written": f"{done['path']}" + (f" and {done['files'] - 1} more" if done["files"] > 1 else ""),
                "size": f"{done['bytes']:,} bytes, {done['tensors']} tensors",
                "route": f"{done['route']}: {done['positions']} positions of {done['source_layers']} source blocks",
                "source sha256": hashes,
            }
        )
    )
    proof = shlex.join(["refmodel", "verify", done["path"], "--source", done["source"]])
    console.print(f"prove it       {proof}", markup=False, soft_wrap=True)


def foreseen(console: Console, described: Mapping[str, Any]) -> None:
    """Print which runtimes can run a copy, and what it costs compared with its source."""
    if "runners" in described:
        table = plain_table("runtime", "runs it", "why")
        table.columns[2].justify, table.columns[2].no_wrap = "left", False
        for runner in described["runners"]:
            table.add_row(runner["name"], Text("yes", "green") if runner["runs"] else Text("no", "bold red"), runner["why"])
        console.print(table)
    if "cost" in described:
        table = plain_table("bytes", "source", "copy")
        for name, value in described["cost"].items():
            if isinstance(value, Mapping):
                table.add_row(name.replace("_", " "), *(f"{value[side]:,}" for side in ("source", "copy")))
        console.print(table)


VERDICTS = {
    "proved": "PROVED: the copy is the source under {route}",
    "proved except forward": "PROVED EXCEPT FORWARD: the copy is the source under {route}",
    "recovered": "RECOVERED: the copy is the source under {route}, which nobody claims; --route says what it should be",
    "wrong": "WRONG: the copy is not the source under {route}; {count} found, first: {first}",
    "not proved": "NOT PROVED: nothing is wrong, but a check that was asked for could not be done",
}


MOST = 5  # findings of a check that are shown; --json has all


def proof(console: Console, report: "Report") -> None:
    """Print the checks of a proof, what they found, and the verdict."""
    from ..surgery.verify import MEANS

    table = plain_table("check", "result", "compared", "what it says")
    table.columns[3].justify, table.columns[3].no_wrap = "left", False
    for check in report.checks:
        colour = {"ok": "green", "WRONG": "bold red", "not done": "yellow"}[check.word]
        says = f"not done: {check.skipped}" if check.skipped else MEANS[check.name]
        table.add_row(check.name, Text(check.word, colour), str(check.compared), says)
    console.print(table)
    if report.seams:
        seams = plain_table("seam: position", "source block", "found")
        for position, source, right in report.seams:
            seams.add_row(str(position), str(source), Text("ok", "green") if right else Text("another", "bold red"))
        console.print(seams)
    for check in report.checks:
        for finding in check.findings[:MOST]:
            console.print(f"! {check.name}: {finding.where} {finding.what}", markup=False, soft_wrap=True)
        if len(check.findings) > MOST:
            console.print(f"! {check.name}: and {len(check.findings) - MOST} more; --json has all", markup=False)
    for note in report.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    if report.route:
        console.print(f"route {report.route} ({report.origin})", markup=False, soft_wrap=True)
    if report.recovered not in ("", report.route):
        console.print(f"by the hashes of its tensors the copy is {report.recovered}", markup=False, soft_wrap=True)
    console.print(proof_verdict(report), markup=False, soft_wrap=True)


def proof_verdict(report: "Report") -> str:
    """The verdict of a proof in one sentence."""
    found = report.findings
    first = f"{found[0][0]}: {found[0][1].where}" if found else ""
    words = {"route": report.route or "any route", "count": len(found), "first": first}
    skipped = [check.name for check in report.checks if check.skipped]
    not_done = f" (not done: {', '.join(skipped)})" if skipped else ""
    return VERDICTS[report.verdict].format(**words) + not_done


def recovery(console: Console, found: "Recovered") -> None:
    """Print the route that the hashes say, and what the file claims."""
    layers_ = " ".join("?" if layer is None else str(layer) for layer in found.recovery.partial)
    console.print(pairs({"route": found.words, "map": layers_}))
    for line in found.lines:
        console.print(line, markup=False, soft_wrap=True)
