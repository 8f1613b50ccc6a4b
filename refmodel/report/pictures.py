"""Pictures of a report, drawn by matplotlib: as SVG whose colours the page chooses, and as PNG."""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .console import shown
from .page import Heat, Lines, Picture, Points, Shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colours of a bright page, by what they are for. In SVG each becomes the page's variable of that name.
COLOURS = {
    "ink": "#1a1f26",
    "axis": "#5b6673",
    "grid": "#d4dae2",
    "one": "#0b5cad",
    "two": "#b3400a",
    "three": "#5b2a87",
    "four": "#0d6e63",
    "five": "#7a5c00",
    "same": "#e3e8ee",
}
CURVES = ("one", "two", "three", "four", "five")
MARKERS = "osD^vPX"
WIDE, NARROW = 9.0, 3.6  # inches
SMALL, LARGE = 1e-60, 1e60  # what is beyond is drawn there: matplotlib's axes overflow
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "refmodel",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["axis"],
    "xtick.color": COLOURS["axis"],
    "ytick.color": COLOURS["axis"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Drawn:
    """A picture as SVG.

    svg    the element, with ids that begin with the prefix that was asked for
    box    its axes: left, top, width and height in percent of the picture
    marks  of points: x and y of each in percent of the axes, from the left and from the top
    """

    svg: str
    box: tuple[float, float, float, float]
    marks: list[tuple[float, float]]


@contextmanager
def settings() -> Iterator[None]:
    """Around everything that draws: matplotlib with the project's settings and no others."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def as_svg(picture: Picture, prefix: str, wide: bool) -> Drawn:
    """Draw a picture for a page, wide or for a phone."""
    with settings():
        figure, axes = drawn(picture, wide)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        place = axes.get_position()
        marks = []
        if isinstance(picture, Points):
            inside = axes.transLimits.transform(list(zip(picture.xs, picture.ys, strict=True)))
            marks = [(round(100 * float(x), 2), round(100 - 100 * float(y), 2)) for x, y in inside]
    box = (place.x0, 1 - place.y1, place.width, place.height)
    left, top, width, height = (round(100 * float(side), 3) for side in box)
    return Drawn(themed(out.getvalue(), prefix), (left, top, width, height), marks)


def themed(text: str, prefix: str) -> str:
    """A file of matplotlib as an element of a page: ids of its own, colours by name, no size of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="presentation" aria-hidden="true">', text, count=1
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--face)", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"xlink:href", "href", text)


def as_png(pictures: Sequence[Picture]) -> bytes:
    """All pictures in one PNG file, one below the other."""
    from matplotlib.image import imread, imsave

    parts = []
    with settings():
        for picture in pictures:
            figure, _ = drawn(picture, True)
            figure.suptitle(plain(picture.title), x=0.01, ha="left", fontsize=10)
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=120)
            out.seek(0)
            parts.append(imread(out, format="png"))
    whole = io.BytesIO()
    imsave(whole, np.concatenate(parts), format="png")
    return whole.getvalue()


def drawn(picture: Picture, wide: bool) -> "tuple[Figure, Axes]":
    """The figure of a picture, and its main axes."""
    from matplotlib.figure import Figure

    tall = isinstance(picture, Heat)
    size = (WIDE, 4.4 if tall else 3.3) if wide else (NARROW, 3.4 if tall else 2.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    DRAW[type(picture)](axes, picture)
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # places the axes
    return figure, axes


def is_wide(axes: "Axes") -> bool:
    """Whether there is room for many labels."""
    figure = axes.get_figure(root=True)
    return figure is not None and bool(figure.get_figwidth() > 5)


def plain(text: str) -> str:
    """Text that matplotlib draws as it is, and not as a formula."""
    return shown(text).replace("$", r"\$")


def short(name: str) -> str:
    """The last word of a place's name, for its tick."""
    return plain(name.split(" ")[-1])


def lowest(picture: Lines) -> float:
    """Where zeros are drawn on a logarithmic axis: below everything else."""
    positive = [v for series in picture.series for v in series.values if SMALL <= v <= LARGE]
    return 10.0 ** (math.floor(math.log10(min(positive))) - 1) if positive else 1e-16


def lines(axes: "Axes", picture: Lines) -> None:
    """Draw curves: a shape for each kind of place, a dashed line at each seam."""
    at = np.arange(len(picture.at))
    floor = lowest(picture) if picture.log else 0.0
    few = len(at) <= 130
    for colour, series in zip(CURVES, picture.series):
        values = np.array(series.values, float)
        values[~np.isfinite(values)] = np.nan
        values = np.clip(values, floor, LARGE) if picture.log else values
        axes.plot(at, values, "-", color=COLOURS[colour], label=plain(series.name), linewidth=1.4)
        kinds = np.array(picture.kinds or [""] * len(at), str)
        for marker, kind in zip(MARKERS, dict.fromkeys(kinds.tolist()) if few else ()):
            axes.plot(at[kinds == kind], values[kinds == kind], marker, color=COLOURS[colour], markersize=3.5)
    if picture.kinds and few:
        for marker, kind in zip(MARKERS, dict.fromkeys(picture.kinds)):
            axes.plot([], [], marker, color=COLOURS["axis"], markersize=4, label=plain(f"{kind} block"))
    for n, seam in enumerate(picture.seams):
        label = None if n else "seam of the route"
        axes.axvline(seam - 0.5, color=COLOURS["axis"], linestyle=(0, (3, 2)), linewidth=0.8, label=label)
    for n, (first, last) in enumerate(picture.bands):
        axes.axvspan(first - 0.5, last + 0.5, color=COLOURS["same"], zorder=0, label=None if n else plain(picture.band))
    if picture.log:
        axes.set_yscale("log")
        axes.set_ylim(bottom=floor / 1.6)
        if any(v == 0 for series in picture.series for v in series.values):
            axes.axhline(floor, color=COLOURS["axis"], linewidth=0.6, linestyle=":")
            axes.text(1.005, floor, "0", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
        if not any(v > 0 for series in picture.series for v in series.values):
            axes.set_ylim(floor / 1.6, 1e-12)
    places(axes, picture)
    axes.grid(True, axis="y", linewidth=0.5)


def places(axes: "Axes", picture: Lines | Shares) -> None:
    """The axis of places, its labels, and the legend above the axes."""
    at = np.arange(len(picture.at))
    step = max(1, math.ceil(len(at) / (12 if is_wide(axes) else 6)))
    axes.set_xticks(at[::step], [short(picture.at[i]) for i in at[::step]])
    axes.set_xlim(-0.5, max(len(at) - 0.5, 0.5))
    axes.set(xlabel=plain(picture.x), ylabel=plain(picture.y))
    axes.figure.legend(loc="outside upper left", ncols=4 if is_wide(axes) else 2, fontsize=7.5, handlelength=1.5)


def heat(axes: "Axes", picture: Heat) -> None:
    """Draw a map of colours, and its scale."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    values = np.array(picture.values, float)
    values[~np.isfinite(values)] = np.nan
    shown = np.where(values > 0, np.clip(values, SMALL, LARGE), np.nan) if picture.log else values
    known = shown[np.isfinite(shown)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1e-16, 1.0)
    low, high = (-max(-low, high), max(-low, high)) if picture.signed else (low, high)
    high = high if high > low else low * 10 if picture.log else low + 1
    name = "viridis" if picture.log else "RdBu_r" if picture.signed else "cividis"
    colours = colormaps[name].with_extremes(bad=COLOURS["same"])
    norm = LogNorm(low, high) if picture.log else Normalize(low, high)
    image = axes.imshow(shown, aspect="auto", interpolation="none", cmap=colours, norm=norm, origin="lower")
    if picture.marked:
        row, column = picture.marked
        axes.plot(column, row, "s", markersize=7, markerfacecolor="none", markeredgecolor=COLOURS["ink"], markeredgewidth=1.4)
    for axis, names, most in ((axes.xaxis, picture.columns, 10), (axes.yaxis, picture.rows, 14)):
        step = max(1, math.ceil(len(names) / (most if is_wide(axes) else 6)))
        axis.set_ticks(range(0, len(names), step), [short(name) for name in names[::step]])
    axes.set(xlabel=plain(picture.x), ylabel=plain(picture.y))
    axes.figure.colorbar(image, ax=axes, label=plain(picture.scale), pad=0.01, fraction=0.05)


def shares(axes: "Axes", picture: Shares) -> None:
    """Draw stacked bars; what is negative goes down from zero."""
    at = np.arange(len(picture.at))
    up, down = np.zeros(len(at)), np.zeros(len(at))
    for colour, hatch, series in zip(CURVES, ("", "///", "...", "xxx", "\\\\\\"), picture.series):
        values = np.nan_to_num(np.array(series.values, float))
        base = np.where(values >= 0, up, down)
        axes.bar(
            at,
            values,
            0.8,
            bottom=base,
            color=COLOURS[colour],
            label=plain(series.name),
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
        )
        up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
    axes.axhline(0, color=COLOURS["axis"], linewidth=0.6)
    places(axes, picture)


def points(axes: "Axes", picture: Points) -> None:
    """Draw points with their intervals, and the line of those that no other beats."""
    if picture.low:
        axes.vlines(picture.xs, picture.low, picture.high, color=COLOURS["grid"], linewidth=1.2)
    if picture.front:
        best = [(picture.xs[i], picture.ys[i]) for i in picture.front]
        axes.plot(
            *zip(*best), "-", color=COLOURS["two"], linewidth=1.2, label="not beaten by a cheaper one", drawstyle="steps-post"
        )
    axes.plot(picture.xs, picture.ys, "o", color=COLOURS["one"], markersize=3.5)
    axes.grid(True, linewidth=0.5)
    axes.set(xlabel=plain(picture.x), ylabel=plain(picture.y))
    if picture.front:
        axes.figure.legend(loc="outside upper left", fontsize=7.5)


DRAW: dict[type, Callable[[Any, Any], None]] = {Lines: lines, Heat: heat, Shares: shares, Points: points}
