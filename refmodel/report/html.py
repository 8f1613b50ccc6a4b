"""A report as one HTML file: it holds all that it shows, and asks nothing of a network."""

import math
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .console import shown
from .page import Heat, Page, Picture, Points
from .pictures import as_svg

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> "Environment":
    """The templates of this package; what is put into them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.finalize = lambda value: shown(value) if type(value) is str else value
    made.globals.update(drawn=drawn, still=still, figures=figures, version=version("refmodel"))
    return made


def drawn(picture: Picture, prefix: str) -> list[dict[str, Any]]:
    """A picture for wide pages and one for phones, with what the template needs of each."""
    both = {"wide": as_svg(picture, f"{prefix}w", True), "narrow": as_svg(picture, f"{prefix}n", False)}
    return [{"size": size, "svg": one.svg, "box": one.box, "marks": one.marks} for size, one in both.items()]


def still(picture: Picture) -> str:
    """A picture for wide pages that answers to nothing, with ids that no other picture has."""
    return as_svg(picture, f"r{sha256(repr(picture).encode('utf-8', 'backslashreplace')).hexdigest()[:12]}", True).svg


def figures(picture: Picture) -> dict[str, Any]:
    """The numbers of a picture, which it shows under a pointer or a key: three digits each, null where there is none."""
    if isinstance(picture, Heat):
        values = [short(row) for row in picture.values]
        return {"kind": "heat", "at": list(picture.columns), "rows": list(picture.rows), "name": picture.scale, "values": values}
    if isinstance(picture, Points):
        named = [(picture.y, picture.ys), (picture.x, picture.xs)]
        named += [("from", picture.low), ("to", picture.high)] if picture.low else []
        return {"kind": "points", "at": list(picture.at), "series": [{"name": name, "values": short(v)} for name, v in named]}
    return {
        "kind": "lines",
        "at": list(picture.at),
        "series": [{"name": series.name, "values": short(series.values)} for series in picture.series],
    }


def short(values: Sequence[float]) -> list[float | None]:
    """Numbers with three digits; null where there is none."""
    return [float(f"{value:.3g}") if math.isfinite(value) else None for value in values]


def as_html(page: Page) -> bytes:
    """The file, in UTF-8. ImportError without jinja2 or matplotlib."""
    return environment().get_template("page.html").render(page=page).encode("utf-8", "backslashreplace")
