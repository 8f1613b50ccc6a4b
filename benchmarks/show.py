"""A report for people: the table, its Markdown, and a picture of the ratios."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .results import ENOUGH, Report, Row, Spread

COLORS = {"aim": "green", "must": "yellow", "missed": "red", "few": "dim", "none": "dim", "absent": "dim"}
TICKS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 20, 50, 100, 200]
COLUMNS = ("what", "beside", "ours", "theirs", "ratio", "quartiles", "must", "aim", "n", "")


def number(value: float) -> str:
    """A number with three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def speeds(spread: Spread | None, unit: str) -> str:
    """The median with its unit; empty for None."""
    return f"{number(spread.median)} {unit}" if spread else ""


def cells(row: Row) -> list[str]:
    """The cells of a row in the order of COLUMNS; a goal of at most x is written ≤ x."""
    if row.ratio is None:
        return [row.name, row.beside, "", "", "", "", *wanted(row), "", row.missing]
    remark = row.verdict + (f", {row.note}" if row.note else "") + (f", others used {row.others:.0%}" if row.others > 0.05 else "")
    quartiles = f"{number(row.ratio.low)} to {number(row.ratio.high)}"
    ours, theirs = speeds(row.ours, row.unit), speeds(row.theirs, row.unit)
    return [row.name, row.beside, ours, theirs, number(row.ratio.median), quartiles, *wanted(row), str(row.n), remark]


def wanted(row: Row) -> list[str]:
    """The cells `must` and `aim`."""
    if row.goal is None:
        return ["", ""]
    sign = "≤ " if row.goal.most else ""
    return [f"{sign}{row.goal.must:g}", "" if row.goal.aim is None else f"{sign}{row.goal.aim:g}"]


def groups(report: Report) -> dict[str, list[Row]]:
    """Group -> its rows, in order."""
    found: dict[str, list[Row]] = {}
    for row in report.rows:
        found.setdefault(row.group, []).append(row)
    return found


def heading(report: Report) -> list[str]:
    """The machine, the versions and the bandwidth, one line each."""
    h = report.header
    versions = ", ".join(f"{name} {version}" for name, version in h["versions"].items())
    bandwidth = "; ".join(
        f"{when}: reading {values['read']:.1f}, filling {values['fill']:.1f} GB/s" for when, values in h["bandwidth"].items()
    )
    return [
        f"{h['processor']}, {h['cores']} cores, {h['threads']} threads, {h['date']}",
        f"features: {' '.join(h['features'])}; Numba's target: {h['target']}",
        versions,
        f"memory, {bandwidth}",
    ]


def table(report: Report, console: Console) -> None:
    """Print the report as tables."""
    for line in heading(report):
        console.print(line, markup=False, soft_wrap=True)
    for group, rows in groups(report).items():
        shown = Table(*COLUMNS, title=group, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in shown.columns[2:9]:
            column.justify, column.no_wrap = "right", True
        for row in rows:
            *most, remark = cells(row)
            shown.add_row(*map(escape, most), f"[{COLORS[row.verdict]}]{escape(remark)}[/]")
        console.print(shown)
    console.print(f"A goal is met by the median of at least {ENOUGH} pairs; `few` says that there were less.", style="dim")


def markdown(report: Report) -> str:
    """The report as one Markdown table."""
    lines = [*(f"{line}  " for line in heading(report)), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for group, rows in groups(report).items():
        for row in rows:
            first, *others = cells(row)
            lines.append("| " + " | ".join([f"{group}: {first}", *others]) + " |")
    return "\n".join(lines) + "\n"


def label(row: Row) -> str:
    """A row's name in the picture."""
    return row.name if row.beside in row.name else f"{row.name} · {row.beside}"


def picture(report: Report, path: Path) -> None:
    """Draw the ratios with quartiles on a logarithmic axis, must and aim marked; a panel for each group with another side.

    SystemExit without matplotlib, or without a ratio.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.ticker import NullLocator
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'refmodel[plots]'") from None

    panels = {
        group: rows
        for group, found in groups(report).items()
        if (rows := [row for row in found if row.ratio and row.beside and "%" not in row.name])
    }
    if not panels:
        raise SystemExit("--plot: there is no ratio to draw; measure a group that has another side")
    heights = [len(rows) + 1.5 for rows in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(9, 0.22 * sum(heights) + 1),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (group, rows) in zip(axes[:, 0], panels.items(), strict=True):
        for y, row in enumerate(rows):
            assert row.ratio
            color = {"aim": "tab:green", "must": "tab:olive", "missed": "tab:red"}.get(row.verdict, "tab:gray")
            axis.plot([row.ratio.low, row.ratio.high], [y, y], color=color, linewidth=5, alpha=0.4, solid_capstyle="butt")
            axis.plot(row.ratio.median, y, marker="o", color=color, markersize=4)
            for value, mark in ((row.goal and row.goal.must, "|"), (row.goal and row.goal.aim, "d")):
                if value:
                    axis.plot(value, y, marker=mark, color="black", markersize=4 if mark == "d" else 8, fillstyle="none")
        axis.axvline(1, color="gray", linewidth=0.5)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.set_xticks([tick for tick in TICKS if low <= tick <= high], minor=False)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_yticks(range(len(rows)), [label(row) for row in rows], fontsize=6)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(group + " (less is better)" * all(row.goal and row.goal.most for row in rows), fontsize=8, loc="left")
    h = report.header
    figure.suptitle(
        f"speed over the other side's; quartiles, must |, aim ◇\n{h['processor']}, {h['threads']} threads, {h['date'][:10]}",
        fontsize=8,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
