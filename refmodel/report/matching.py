"""What the arrays of a dump were found to be, as a table, as lines and as JSON. Nothing is computed here."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .tables import finite, plain_table

if TYPE_CHECKING:
    from ..compare.matching import Match

COLOURS = {"sure": "green", "likely": "yellow", "guess": "yellow", "twice": "dim", "none": "bold red"}


def matches_table(matches: "Sequence[Match]") -> Table:
    """A line for each array: what it is, how that was found, and how its numbers lie."""
    table = plain_table("array", "is", "", "score", "axes", "order", "tokens")
    for match in matches:
        place, colour = match.place, COLOURS[match.how]
        how = Text(match.how, colour)
        if place is None:
            table.add_row(match.own, "", how, "", "", "", "")
            continue
        tokens = f"{place.first} to {place.first + place.count - 1}"
        axes = ", ".join(map(str, place.axes)) or "as they are"
        table.add_row(match.own, place.tap, how, f"{match.score:.4f}", axes, place.order, tokens)
    return table


def matches_line(matches: "Sequence[Match]", is_sure: bool) -> str:
    """The last line: how many of each, and whether the map is sure."""
    counted = Counter(match.how for match in matches)
    words = ", ".join(f"{count} {how}" for how, count in counted.items())
    advice = "SURE" if is_sure else "NOT SURE: look at what is not sure before you believe a comparison with this map"
    return f"{len(matches)} arrays: {words}\n{advice}"


def matches_json(matches: "Sequence[Match]", is_sure: bool, written: str) -> dict[str, Any]:
    """The same for --json; `written` is the path of the map, or empty."""
    rows = []
    for match in matches:
        row: dict[str, Any] = {"array": match.own, "how": match.how, "score": match.score, "tap": None}
        if place := match.place:
            row |= {"tap": place.tap, "axes": list(place.axes), "heads": place.order, "first": place.first, "count": place.count}
            row |= {"nmse": place.fit}
        rows.append(row)
    found: dict[str, Any] = finite({"sure": is_sure, "map": written or None, "matches": rows})
    return found
