"""Rows -> rich tables and JSON. Nothing is computed here."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from .against import Other
    from .demo import Case
    from .diff import Diff, LogitRow, Row
    from .explain import Explanation
    from .inspect import KindRow, LayerRow
    from .numerics.limits import Limits
    from .timing import Profile
    from .timing import Row as Spent
    from .trial import Trial
    from .verify import Recovered, Report


@contextmanager
def watching(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A spinner that names the tap being made; it appears on a terminal only, and leaves nothing behind."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda name: progress.update(task, description=f"{what} {name}")


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that fills up; each step names what is done. Without a terminal, one line for each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        progress.refresh()

        def seen(name: str) -> None:
            progress.update(task, advance=1, description=f"{what}: {name}")
            if not console.is_terminal:
                console.print(f"{what}: {name}", style="dim", markup=False)

        yield seen


def plain_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def pairs(values: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in values.items():
        table.add_row(key, escape(value))
    return table


def kinds(rows: "Sequence[KindRow]") -> Table:
    """What the tensors of each kind of block are."""
    table = plain_table("block", "tensor", "type", "rows, columns", "what it is")
    for i, column in enumerate(table.columns):
        column.justify, column.no_wrap = "right" if i == 3 else "left", i not in (2, 4)
    for i, row in enumerate(rows):
        if i and row.kind != rows[i - 1].kind:
            table.add_section()
        kind = "" if i and row.kind == rows[i - 1].kind else row.kind
        table.add_row(kind, escape(row.tensor), row.types, ", ".join(map(str, row.shape)), escape(row.meaning))
    return table


def layers(rows: "Sequence[LayerRow]", tensors: bool) -> Table:
    table = plain_table("block", "kind", "MB", "types")
    for row in rows:
        table.add_row(str(row.index), row.kind, f"{row.bytes / 1e6:.2f}", row.types)
        if tensors:
            for line in row.tensors:
                table.add_row("", "", "", escape(line))
    return table


def route(console: Console, described: Mapping[str, Any]) -> None:
    """The map in words, the seam table, and the other notations."""
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


def row_cells(row: "Row") -> list[str]:
    verdict = "[green]ok[/]" if row.within else "[bold red]OUT[/]"
    if row.problem:
        return [escape(row.name), "", "", "", "", verdict + " " + escape(row.problem)]
    return [
        escape(row.name),
        str(list(row.shape)),
        f"{row.nmse:.1e}",
        f"{row.nmse_var:.1e}",
        f"{row.max_abs:.1e}",
        verdict,
    ]


def chosen_rows(result: "Diff", every: bool) -> "list[Row]":
    """All rows; or, of the first call, one for each block and the head, and those out of tolerance (the first twenty)."""
    if every:
        return result.rows
    ends = ("l_out", "result_norm", "result_output")
    wrong = [row for row in result.rows if not row.within][:20]
    return [row for row in result.rows if row in wrong or (row.name.startswith(ends) and "@" not in row.name)]


def diff_table(result: "Diff", every: bool) -> Table:
    table = plain_table("tensor", "shape", "NMSE", "NMSE (var)", "max |a-b|", "verdict")
    for row in chosen_rows(result, every):
        table.add_row(*row_cells(row))
    return table


def diff_headline(result: "Diff", other: "Other", numerics: str) -> str:
    first, t = result.first_wrong, result.tolerance
    compared = [row for row in result.rows if not row.problem]
    worst = max(compared, key=lambda row: row.nmse, default=None)
    lines = [f"{numerics} against {other.who}"]
    lines.append(
        f"compared {len(compared)} of {other.emitted} nodes; the others repeat or move numbers, golden/names has a reason for each"
    )
    lines.append(f"bit for bit equal: {sum(not row.differ for row in compared)} of {len(compared)}")
    if worst:
        lines.append(f"largest NMSE {worst.nmse:.1e} at {worst.name}; allowed {t.tensors:.0e}, logits {t.logits:.0e}: {t.reason}")
    lines += logit_lines(result.logits)
    lines.append("WITHIN TOLERANCE" if first is None else f"OUT OF TOLERANCE, first at {located(first, other)}")
    return "\n".join(lines)


def located(row: "Row", other: "Other") -> str:
    """A wrong row's name, llama.cpp's operation behind it where the record has it, and what is wrong."""
    operation = f" ({other.operations[row.name]})" if row.name in other.operations else ""
    return f"{row.name}{operation}: {wrong_because(row)}"


def faults(result: "Diff", other: "Other", most: int = 4) -> str:
    """The wrong rows of a diff in which every operation started from the other side's numbers: the wrong operations."""
    wrong = [row for row in result.rows if not row.within]
    shown = [f"  {located(row, other)}" for row in wrong[:most]] + ["  ..."] * (len(wrong) > most)
    head = f"with every operation fed llama.cpp's own numbers (--anchor-nodes), {len(wrong)} of {len(result.rows)} rows are wrong:"
    return "\n".join([head, *shown])


def demo_title(title: str) -> str:
    return f"\n[bold]{escape(title)}[/bold]"


def demo_text(title: str, prompt: str, text: str) -> str:
    """A heading, and a text under it in which the prompt is dim."""
    return f"{demo_title(title)}\n[dim]{escape(prompt)}[/dim]{escape(text)}"


def demo_model(c: "Case") -> str:
    kinds = ", ".join(c.model.kinds)
    return (
        f"{c.model.path.name}: {c.model.architecture}, trained on Jane Austen's novels and sums; {c.model.n_layer} blocks: {kinds}"
    )


def wrong_because(row: "Row") -> str:
    return row.problem or f"NMSE {row.nmse:.1e}, allowed {row.allowed:.0e}"


def logit_lines(rows: "Sequence[LogitRow]") -> list[str]:
    if not rows:
        return ["logits were not compared"]
    decided = [row for row in rows if not row.near_tie]
    agree = sum(row.top1_ours == row.top1_theirs for row in decided)
    worst = max(rows, key=lambda row: row.kl)
    return [
        f"logits: largest NMSE {max(row.nmse for row in rows):.1e}, largest KL {worst.kl:.1e} nats (token {worst.token}); "
        f"top-1 agrees at {agree} of {len(decided)} tokens, {len(rows) - len(decided)} near ties abstain"
    ]


def diff_json(result: "Diff", other: "Other", numerics: str) -> dict[str, Any]:
    first = result.first_wrong
    return {
        "verdict": "within" if first is None else "out",
        "first": first and first.name,
        "numerics": numerics,
        "against": other.who,
        "compared": sum(not row.problem for row in result.rows),
        "emitted": other.emitted,
        "left_out": dict(other.left_out),
        "tolerance": asdict(result.tolerance),
        "rows": [{**asdict(row), "within": row.within} for row in result.rows],
        "logits": [asdict(row) for row in result.logits],
    }


def explanation_table(explanation: "Explanation", every: bool) -> Table:
    """Shares of the distance in percent, for the outputs of the blocks and the logits; of the first call, or of all."""
    parts = list(explanation.budgets[0].parts)
    table = plain_table("tensor", "NMSE to truth", *(f"{part} %" for part in parts), "unexplained NMSE")
    for budget in explanation.budgets:
        if every or "@" not in budget.name:
            shares = [f"{100 * part.share:.2f}" for part in budget.parts.values()]
            table.add_row(escape(budget.name), f"{budget.distance:.1e}", *shares, f"{budget.parts[parts[-1]].nmse:.1e}")
    return table


def explanation_headline(explanation: "Explanation", other: "Other") -> str:
    verdicts = explanation.verdicts()
    ties = [row.token for row, verdict in zip(explanation.tokens, verdicts, strict=True) if verdict == "NEAR TIE"]
    lines = [
        f"{other.who} against the truth (float64)",
        f"median unexplained NMSE of a token's logits {median(explanation.left):.1e}",
    ]
    if ties:
        lines.append(f"NEAR TIE at tokens {', '.join(map(str, ties))}: rounding decides which token is best")
    if explanation.flip:
        lines.append(f"each operation is right; the runs part where {explanation.flip.describe()}")
    first = explanation.first
    lines.append("EXPLAINED" if first is None else f"UNEXPLAINED, first at {first.name}: {wrong_because(first)}")
    return "\n".join(lines)


def explanation_json(explanation: "Explanation", other: "Other") -> dict[str, Any]:
    first, flip = explanation.first, explanation.flip
    return {
        "verdict": "EXPLAINED" if explanation.explained else "UNEXPLAINED",
        "first": first and first.name,
        "against": other.who,
        "budgets": [asdict(budget) for budget in explanation.budgets],
        "tokens": [
            {**asdict(row), "unexplained": left, "verdict": verdict}
            for row, left, verdict in zip(explanation.tokens, explanation.left, explanation.verdicts(), strict=True)
        ],
        "flip": flip and asdict(flip),
    }


@contextmanager
def copying(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes copied and to copy; on a terminal only."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("copying", total=None)
        yield lambda copied, total: progress.update(task, advance=copied, total=total)


def copied(console: Console, done: Mapping[str, Any]) -> None:
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
    """Who can run a copy, and what it costs beside its source."""
    if "runners" in described:
        table = plain_table("runtime", "runs it", "why")
        table.columns[2].justify, table.columns[2].no_wrap = "left", False
        for runner in described["runners"]:
            table.add_row(escape(runner["name"]), "[green]yes[/]" if runner["runs"] else "[bold red]no[/]", escape(runner["why"]))
        console.print(table)
    if "cost" in described:
        table = plain_table("bytes", "source", "copy")
        for name, value in described["cost"].items():
            if isinstance(value, Mapping):
                table.add_row(name.replace("_", " "), *(f"{value[side]:,}" for side in ("source", "copy")))
        console.print(table)


VERDICTS = {
    0: "PROVED: the copy is the source under {route}",
    1: "WRONG: the copy is not the source under {route}; {count} found, first: {first}",
    2: "NOT PROVED: nothing is wrong, but a check that was asked for could not be done",
}
MOST = 5  # findings of a check that are shown; --json has all


def proof(console: Console, report: "Report") -> None:
    from .verify import MEANS

    table = plain_table("check", "result", "compared", "what it says")
    table.columns[3].justify, table.columns[3].no_wrap = "left", False
    for check in report.checks:
        colour = {"ok": "green", "WRONG": "bold red", "not done": "yellow"}[check.word]
        says = f"not done: {check.skipped}" if check.skipped else MEANS[check.name]
        table.add_row(check.name, f"[{colour}]{check.word}[/]", str(check.compared), escape(says))
    console.print(table)
    if report.seams:
        seams = plain_table("seam: position", "source block", "found")
        for position, source, right in report.seams:
            seams.add_row(str(position), str(source), "[green]ok[/]" if right else "[bold red]another[/]")
        console.print(seams)
    found = report.findings
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
    first = f"{found[0][0]}: {found[0][1].where}" if found else ""
    words = {"route": report.route or "any route", "count": len(found), "first": first}
    skipped = [check.name for check in report.checks if check.skipped]
    not_done = f" (not done: {', '.join(skipped)})" if skipped else ""
    console.print(VERDICTS[report.status].format(**words) + not_done, markup=False, soft_wrap=True)


def recovery(console: Console, found: "Recovered") -> None:
    """What the hashes say, and what the file says."""
    route_ = found.recovery.route
    layers_ = " ".join(map(str, route_.layers)) if route_ else "-"
    console.print(pairs({"route": route_.canonical if route_ else "none", "map": layers_}))
    for line in found.lines:
        console.print(line, markup=False, soft_wrap=True)


def trial(console: Console, done: "Trial") -> None:
    """Position by position, then what it comes to."""
    table = plain_table("position", "source block", "pass", "NMSE added", "NMSE accumulated")
    for step in done.steps:
        numbers = [str(step.source), str(step.visit + 1), f"{step.added:.1e}", f"{step.accumulated:.1e}"]
        table.add_row(str(step.position), *numbers, style="bold" if step.visit else None)
    console.print(table)
    for line in done.sentences():
        console.print(line, markup=False, soft_wrap=True)


def trial_json(done: "Trial") -> dict[str, Any]:
    return {
        "route": done.route.canonical,
        "steps": [asdict(step) for step in done.steps],
        "logits_nmse": done.logits,
        "unrouted_logits_nmse": done.unrouted,
        "amplification": done.amplification,
        "repeats": [{"first": a, "last": b, "growth": done.growth(a, b) if a else None} for a, b in done.repeats],
        "sentences": done.sentences(),
    }


def profile_tables(profile: "Profile") -> Iterator[Table | str]:
    """By operation and by kind of block; the machine's limits are measured now."""
    from .numerics.limits import measured

    limits = measured()
    yield spent_table("operation", profile.by_operation(), profile.total, limits)
    yield spent_table("by block", profile.by_place(), profile.total, limits)
    yield (
        f"{profile.total:.3f} s in all. Limit: the time to read the bytes at {limits.bytes / 1e9:.1f} GB/s or to multiply at "
        f"{limits.multiply_adds / 1e9:.0f} 8-bit multiply-adds a nanosecond, whichever is longer; both were measured just now, "
        "and what a cache holds may be read faster"
    )


def spent_table(title: str, rows: "Sequence[Spent]", total: float, limits: "Limits") -> Table:
    table = plain_table(title, "phase", "calls", "ms", "%", "MB", "GB/s", "multiply-adds/ns", "% of limit")
    for row in rows:
        share = row.share_of_limit(limits)
        moves = row.bytes and row.seconds
        table.add_row(
            escape(row.name),
            row.phase,
            str(row.calls or ""),
            f"{row.seconds * 1e3:.2f}",
            f"{100 * row.seconds / total:.1f}" if total else "",
            f"{row.bytes / 1e6:.1f}" if moves else "",
            f"{row.bytes / row.seconds / 1e9:.1f}" if moves else "",
            f"{row.multiply_adds / row.seconds / 1e9:.1f}" if row.multiply_adds and row.seconds else "",
            "" if share is None else f"{100 * share:.0f}",
        )
    return table


def profile_json(profile: "Profile") -> dict[str, Any]:
    from .numerics.limits import measured

    limits = measured()

    def rows(spent: "Sequence[Spent]") -> list[dict[str, Any]]:
        return [{**asdict(row), "share_of_limit": row.share_of_limit(limits)} for row in spent]

    return {
        "seconds": profile.total,
        "limits": asdict(limits),
        "operations": rows(profile.by_operation()),
        "blocks": rows(profile.by_place()),
    }
