"""Routes: which source block runs at each position. The only place that knows the notations.

blocks:15,20               run blocks 15..19 twice: the window [15, 20) is repeated right after itself
blocks:3,6;4,6             several windows, applied in sequence, each after the last j-1 of the route so far
(15,20)                    one window; (0,0) is the identity
layers:0..14,12,13,14..39  explicit, `..` inclusive and rising; `layers:` may be left out where no window could be meant
"""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import Any

from ..errors import RouteError
from ..notebook import html_of

MAX_POSITIONS = 4096  # a route longer than this is a typing mistake, and would only exhaust memory
WINDOW = re.compile(r"\(?\s*([0-9]{1,99})\s*,\s*([0-9]{1,99})\s*\)?")
PIECE = re.compile(r"\s*([0-9]{1,99})\s*(?:\.\.\s*([0-9]{1,99})\s*)?")
LIST = re.compile(r"[0-9\s,.]*(\.\.|,[0-9\s]*,)[0-9\s,.]*")  # a range or three numbers: nobody means a window


@dataclass(frozen=True)
class Route:
    """Which source block runs at each position: position p runs block layers[p], of the n_layer blocks of the model.

    layers   the map, at least one position and at most 4096; a block may come up any number of times
    n_layer  blocks of the source

    A Route is a value: equal routes are equal whatever notation they were read from.
    """

    layers: tuple[int, ...]
    n_layer: int

    @classmethod
    def identity(cls, n_layer: int) -> "Route":
        """The file's own order. RouteError for a number of blocks that no model has."""
        return cls(tuple(in_order(n_layer)), n_layer)

    @classmethod
    def of(cls, value: "Route | str | Sequence[int] | None", n_layer: int) -> "Route":
        """A route from what an interface was given: a Route, a text, source blocks, or None for the identity.

        RouteError if it cannot be read, or does not fit a model of n_layer blocks.
        """
        if value is None:
            return cls.identity(n_layer)
        if isinstance(value, str):
            return cls.parse(value, n_layer)
        if isinstance(value, Route):
            if value.n_layer != n_layer:
                raise RouteError(
                    f"route {value.canonical} is for {value.n_layer} blocks, the model has {n_layer}; make a route for "
                    "this model, or name the model it is for"
                )
            return value
        try:
            layers = [operator.index(layer) for layer in islice(value, MAX_POSITIONS + 1)]
        except TypeError:
            raise RouteError(f"route {shown(str(value))}: expected a text such as blocks:1,3, or a list of whole numbers") from None
        return checked(layers, n_layer, shown(str(layers)))

    @classmethod
    def parse(cls, text: str, n_layer: int) -> "Route":
        """Read any of the notations above; an empty text or `identity` is the identity. RouteError says what does not fit."""
        in_order(n_layer)
        words, name = text.strip(), shown(text)
        kind, colon, body = words.partition(":")
        if words in ("", "identity"):
            return cls.identity(n_layer)
        if colon and kind in NOTATIONS:
            return checked(NOTATIONS[kind](body, n_layer, name), n_layer, name)
        if WINDOW.fullmatch(words) and words.startswith("(") and words.endswith(")"):
            return checked(windows(words, n_layer, name), n_layer, name)
        bare = words[1:-1] if words.startswith("[") and words.endswith("]") else words
        if pair := WINDOW.fullmatch(bare):
            raise RouteError(f"--route {name}: two bare numbers are ambiguous; {both_readings(int(pair[1]), int(pair[2]))}")
        if LIST.fullmatch(bare):
            return checked(listed(bare, n_layer, name), n_layer, name)
        meant = get_close_matches(kind.strip().lower(), NOTATIONS, 1) if colon else []
        hint = f"; did you mean {meant[0]}:{shown(body)}?" if meant else ""
        raise RouteError(f"--route {name}: not a route; expected blocks:i,j or layers:0..14,12,13 or (i,j){hint}")

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)

    @property
    def is_identity(self) -> bool:
        """Whether every block runs once, in the file's order."""
        return self.layers == tuple(range(self.n_layer))

    @cached_property
    def canonical(self) -> str:
        """One text for each route: `blocks:` with windows if windows make it, else `layers:` in ranges."""
        found = as_windows(self)
        if found is None:
            return self.as_layers
        return "blocks:" + ";".join(f"{i},{j}" for i, j in found) if found else "blocks:0,0"

    @property
    def as_layers(self) -> str:
        """The explicit notation: `layers:0..6,5..11`."""
        return "layers:" + ",".join(f"{a}..{b - 1}" if b - a > 1 else str(a) for a, b in self.slices)

    @property
    def slices(self) -> list[tuple[int, int]]:
        """Half-open runs of rising source blocks, in order: PEFT's layer_replication and mergekit's layer_range."""
        runs: list[list[int]] = []
        for layer in self.layers:
            if runs and runs[-1][1] == layer:
                runs[-1][1] += 1
            else:
                runs.append([layer, layer + 1])
        return [(a, b) for a, b in runs]

    @property
    def places(self) -> list[list[int]]:
        """The positions at which each source block runs, rising; none for a block that is skipped."""
        places: list[list[int]] = [[] for _ in range(self.n_layer)]
        for p, layer in enumerate(self.layers):
            places[layer].append(p)
        return places

    @property
    def visits(self) -> list[int]:
        """How often a position's block has run before it: 0 for the first time."""
        before = {p: k for places in self.places for k, p in enumerate(places)}
        return [before[p] for p in range(len(self.layers))]

    @property
    def seams(self) -> list[tuple[int, int]]:
        """(position, source) on both sides of each place where the source jumps, or a repetition begins or ends."""
        visits, layers = self.visits, self.layers
        cuts = [p for p in range(len(layers) - 1) if layers[p + 1] != layers[p] + 1 or visits[p + 1] != visits[p]]
        return [(p, layers[p]) for p in sorted({q for cut in cuts for q in (cut, cut + 1)})]

    @property
    def overhead(self) -> float:
        """Positions beyond the source's blocks, in percent of them; negative for a shorter route."""
        return 100 * (len(self.layers) - self.n_layer) / self.n_layer

    def describe(self) -> dict[str, Any]:
        """What `refmodel route` shows, as plain data for JSON."""
        notations = {
            "canonical": self.canonical,
            "layers": self.as_layers,
            "PEFT layer_replication": str([list(s) for s in self.slices]),
            "mergekit layer_range": " ".join(f"[{a}, {b}]" for a, b in self.slices),
        }
        found = as_windows(self)
        if found is not None and len(found) <= 1:
            i, j = found[0] if found else (0, 0)
            notations["RYS (i, j)"] = f"({i}, {j})"
        return {
            "source_layers": self.n_layer,
            "positions": len(self.layers),
            "overhead_percent": round(self.overhead, 2),
            "map": list(self.layers),
            "places": self.places,
            "seams": [list(seam) for seam in self.seams],
            "skipped": sorted(set(range(self.n_layer)) - set(self.layers)),
            "notations": notations,
        }


def shown(text: str) -> str:
    """The user's words as one line of a message: cut when long, nothing in them that a terminal would obey."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:81])
    return line if len(text) <= 80 else line[:79] + "…"


def both_readings(i: int, j: int) -> str:
    """What the bare pair i,j could mean: each in words that are not ambiguous, as an instruction for a message."""
    low, high = min(i, j), max(i, j, min(i, j) + 1)
    window = "blocks:0,0 for the identity" if i == j == 0 else f"blocks:{low},{high} to run blocks {low} to {high - 1} twice"
    return f"write {window}, or layers:{i},{j} to run only these two blocks"


def in_order(n_layer: int) -> list[int]:
    """The source blocks in order. RouteError unless there are 1 to 4096."""
    if not 1 <= n_layer <= MAX_POSITIONS:
        raise RouteError(
            f"a model of {n_layer} blocks has no routes; expected 1 to {MAX_POSITIONS}; check the number of blocks, or --layers"
        )
    return list(range(n_layer))


def inserted(layers: list[int], i: int, j: int) -> list[int]:
    """The route with one window [i, j): its blocks once more, after the last j-1."""
    at = len(layers) - layers[::-1].index(j - 1)
    return layers[:at] + list(range(i, j)) + layers[at:]


def windows(body: str, n_layer: int, text: str) -> list[int]:
    """The blocks of `i,j;i,j`, each pair with or without parentheses; `text` names the route in a RouteError."""
    layers = in_order(n_layer)
    for part in body.split(";"):
        match = WINDOW.fullmatch(part.strip())
        if not match or part.count("(") != part.count(")"):
            raise RouteError(
                f"--route {text}: {shown(part.strip())!r} is not a pair i,j; expected for example blocks:15,20 or blocks:3,6;4,6"
            )
        i, j = int(match[1]), int(match[2])
        if (i, j) == (0, 0):
            continue
        if j <= i:
            hint = f"; did you mean blocks:{j},{i}?" if j < i else ""
            raise RouteError(f"--route {text}: {i} is not before {j}. A pair i,j runs blocks i to j-1 twice{hint}")
        if j > n_layer:
            raise RouteError(
                f"--route {text}: block {j - 1} is out of range; the model has blocks 0 to {n_layer - 1}; choose among these"
            )
        if j - 1 not in layers:
            raise RouteError(
                f"--route {text}: block {j - 1} is not in the route before this window, so it cannot be inserted; put this "
                "window first, or list the blocks with layers:"
            )
        layers = inserted(layers, i, j)
        if len(layers) > MAX_POSITIONS:
            raise RouteError(
                f"--route {text}: makes more than {MAX_POSITIONS} positions, the most that is run; repeat fewer blocks"
            )
    return layers


def listed(body: str, n_layer: int, text: str) -> list[int]:
    """The blocks of `0..14,12,13`, ranges inclusive; `text` names the route in a RouteError."""
    layers: list[int] = []
    for part in body.split(","):
        match = PIECE.fullmatch(part)
        if not match:
            raise RouteError(
                f"--route {text}: {shown(part.strip())!r} is not a block or a range a..b; expected for example layers:0..14,12,13"
            )
        a, b = int(match[1]), int(match[2] or match[1])
        if b < a:
            raise RouteError(f"--route {text}: the range {a}..{b} falls; list its blocks one by one to run them backwards")
        if max(a, b) >= n_layer:
            raise RouteError(
                f"--route {text}: block {max(a, b)} is out of range; the model has blocks 0 to {n_layer - 1}; choose among these"
            )
        layers += range(a, b + 1)
        if len(layers) > MAX_POSITIONS:
            raise RouteError(
                f"--route {text}: makes more than {MAX_POSITIONS} positions, the most that is run; repeat fewer blocks"
            )
    return layers


NOTATIONS = {"blocks": windows, "layers": listed}


def checked(layers: list[int], n_layer: int, text: str) -> Route:
    """The route of these source blocks. RouteError, which names it by `text`, for a block out of range or too many positions."""
    in_order(n_layer)
    if not layers or len(layers) > MAX_POSITIONS:
        raise RouteError(
            f"route {text}: has {len(layers)} positions; expected 1 to {MAX_POSITIONS}; name at least one block and not "
            "more positions"
        )
    for layer in layers:
        if not 0 <= layer < n_layer:
            raise RouteError(
                f"route {text}: block {layer} is out of range; the model has blocks 0 to {n_layer - 1}; choose among these"
            )
    return Route(tuple(layers), n_layer)


def as_windows(route: Route) -> list[tuple[int, int]] | None:
    """Windows that make this route, in the order of their places: none for the identity; None if none are found."""
    layers, found = list(route.layers), []
    current = list(range(route.n_layer))
    while current != layers:
        p = next((p for p, (a, b) in enumerate(zip(layers, current)) if a != b), min(len(layers), len(current)))
        if p == 0 or p >= len(layers) or layers[p - 1] < layers[p]:
            return None
        i, j = layers[p], layers[p - 1] + 1
        if j - 1 not in current or len(current) >= len(layers):
            return None
        found.append((i, j))
        current = inserted(current, i, j)
    return found
