"""Pictures of sweeps and of a model's anatomy."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import F
from ..errors import SweepError
from ..machine.files import whole

if TYPE_CHECKING:
    from ..sweep.anatomy import Anatomy
    from ..sweep.results import Result, Results

GREY, BEST = "#c8c8c8", "#32cd32"
SQUARE: dict[str, Any] = {"marker": "s", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


def pyplot() -> Any:
    """matplotlib's drawing functions, without a window. SweepError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise SweepError("--png needs matplotlib: pip install 'refmodel[plots]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def saved(figure: Any, path: Path, plt: Any) -> None:
    """Write a figure as PNG, whole or not at all. FileError if it cannot be written."""
    with whole([path]) as (file,):
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def gain_map(found: "Results", probe: str) -> F:
    """The mean gain of every window, [N + 1, N + 1], row i, column j; NaN where it was not computed; the unrouted model at 0, 0."""
    n = found.about.n_layer
    out = np.full((n + 1, n + 1), np.nan)
    for row in found.rows:
        if row.window and len(gains := found.gains(row, probe)):
            out[row.window] = gains.mean()
    return out


def sweep_picture(found: "Results", probe: str, path: Path) -> None:
    """Draw a sweep by one probe: the map of windows, gain against overhead with intervals, single blocks."""
    plt = pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    heatmap(left, figure, gain_map(found, probe), plt)
    frontier(middle, found, probe)
    singles(right, found, probe)
    figure.suptitle(f"{found.about.name}: gain by {probe} over the unrouted model ({found.about.numerics})")
    saved(figure, path, plt)


def heatmap(axes: Any, figure: Any, gains: F, plt: Any) -> None:
    """The map of windows: y = i, x = j, red is better; the unrouted model is marked at (0, 0), the best window in lime."""
    most = float(np.nanmax(np.abs(gains))) or 1.0
    colours = plt.get_cmap("RdBu_r").with_extremes(bad=GREY)
    image = axes.imshow(np.ma.masked_invalid(gains), cmap=colours, vmin=-most, vmax=most, origin="upper")
    axes.plot(0, 0, label="unrouted", markeredgecolor="black", **SQUARE)
    windows = gains.copy()
    windows[0, 0] = np.nan
    if not np.isnan(windows).all():
        i, j = np.unravel_index(int(np.nanargmax(windows)), gains.shape)
        axes.plot(
            j, i, marker="s", markersize=7, markerfacecolor="none", markeredgecolor=BEST, linestyle="none", label=f"best ({i}, {j})"
        )
    axes.set(xlabel="j, the end of the window (not in it)", ylabel="i, its first block", title="every window run twice")
    axes.legend(loc="lower left", fontsize=8)
    figure.colorbar(image, ax=axes, label="gain")


def frontier(axes: Any, found: "Results", probe: str) -> None:
    """Gain against overhead, and the routes that no cheaper route beats, with their intervals."""
    from ..sweep.score import grouped, intervals

    rows = [row for row in found.rows if not row.route.is_identity and len(found.gains(row, probe))]
    points = [(row.route.overhead, float(found.gains(row, probe).mean()), row) for row in rows]
    axes.plot([p[0] for p in points], [p[1] for p in points], ".", color=GREY)
    best: list[tuple[float, float, Result]] = []
    for overhead, gain, row in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or gain > best[-1][1]:
            best.append((overhead, gain, row))
    group = found.about.probes[probe]["group"]
    for overhead, gain, row in best:
        low, high = intervals(grouped(found.gains(row, probe)[:, None], group))[0]
        if np.isfinite(low) and np.isfinite(high):
            axes.errorbar(overhead, gain, [[max(0.0, gain - low)], [max(0.0, high - gain)]], fmt="o", color="#b03a2e", capsize=3)
        axes.annotate(
            row.route.canonical.removeprefix("blocks:"), (overhead, gain), fontsize=7, textcoords="offset points", xytext=(4, 4)
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="positions more than the model has blocks, %", ylabel="gain, 95 % interval", title="gain against overhead")


def singles(axes: Any, found: "Results", probe: str) -> None:
    """A bar for every single block that was repeated."""
    ones = {w[0]: float(found.gains(row, probe).mean()) for row in found.rows if (w := row.window) and w[1] - w[0] == 1}
    colours = ["#b03a2e" if gain > 0 else "#1f618d" for gain in ones.values()]
    axes.bar(list(ones), list(ones.values()), color=colours)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="block that is run twice", ylabel="gain", title="single blocks")


def zones(found: "Anatomy", path: Path, title: str) -> None:
    """Draw a model's anatomy: influence and chance by block, and the angles of windows."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    at = [one.block for one in found.blocks]
    left.bar(at, [one.influence for one in found.blocks], color="#1f618d", label="influence")
    left.set(xlabel="block", ylabel="1 - cosine of input and output", title=title)
    other = left.twinx()
    other.plot(at, [one.chance for one in found.blocks], "o-", color="#b03a2e", label="chance of the final token")
    other.set(ylabel=f"probability of {found.token!r} through the head", ylim=(0, 1))
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    n = len(found.blocks)
    shown = np.ma.masked_where(np.tril(np.ones((n + 1, n + 1), bool)), found.angles)
    image = right.imshow(shown, cmap=plt.get_cmap("viridis").with_extremes(bad="white"), origin="upper")
    right.set(xlabel="j, the end of the window (not in it)", ylabel="i, its first block", title="how far a window turns the stream")
    figure.colorbar(image, ax=right, label="half turns")
    saved(figure, path, plt)
