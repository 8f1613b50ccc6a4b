"""Plans: which routes a sweep tries. A plan is a list of routes; the model's own order is the first of every sweep."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RouteError, SweepError
from ..machine.boundary import from_json
from ..machine.files import text_of
from ..model.route import Route

Window = tuple[int, int]
"""The blocks i to j-1, as (i, j)."""

WORD = re.compile(r"(size|stride|start)=([0-9]{1,4})(?:\.\.([0-9]{1,4}))?")
EXPECTED = "expected words such as size=4 stride=1 start=8..32"


def every_window(n_layer: int) -> list[Window]:
    """All windows of n_layer blocks, n_layer * (n_layer + 1) / 2 of them, by their first block, then by their end."""
    return [(i, j) for i in range(n_layer) for j in range(i + 1, n_layer + 1)]


def some_windows(words: str, n_layer: int) -> list[Window]:
    """The windows that `size=4 stride=1 start=8..32` describes, in the order of their size and first block.

    size    blocks in a window, a number or a range a..b
    stride  from one first block to the next; 1 if it is left out
    start   the first blocks, a..b with both ends, or one; all if it is left out. A window that does not fit is left out

    SweepError for other words, or if no window fits the model.
    """
    given: dict[str, tuple[int, int]] = {}
    for word in words.replace(",", " ").split():
        match = WORD.fullmatch(word)
        if not match or match[1] in given:
            raise SweepError(f"--windows {words!r}: {word!r} is not understood; {EXPECTED}")
        given[match[1]] = int(match[2]), int(match[3] or match[2])
    if "size" not in given or given.get("stride", (1, 1))[0] < 1 or given["size"][0] < 1:
        raise SweepError(f"--windows {words!r}: needs a size, and numbers from 1 on; {EXPECTED}")
    first, last = given.get("start", (0, n_layer))
    starts = range(first, last + 1, given.get("stride", (1, 1))[0])
    sizes = range(given["size"][0], given["size"][1] + 1)
    found = [(i, i + size) for size in sizes for i in starts if i + size <= n_layer]
    if not found:
        raise SweepError(f"--windows {words!r}: no such window fits a model of {n_layer} blocks; take a smaller size or start")
    return found


def repeated(window: Window, n_layer: int, times: int = 2) -> Route:
    """The route that runs a window `times` times in all, one after the other."""
    i, j = window
    return Route.of([*range(j), *list(range(i, j)) * (times - 1), *range(j, n_layer)], n_layer)


def skipped(window: Window, n_layer: int) -> Route | None:
    """The route without a window; None if nothing is left."""
    i, j = window
    return Route.of([*range(i), *range(j, n_layer)], n_layer) if j - i < n_layer else None


def swapped(window: Window, n_layer: int) -> Route | None:
    """The route in which a window and the next one of its size change places; None if the next one does not fit."""
    i, j = window
    end = 2 * j - i
    return Route.of([*range(i), *range(j, end), *range(i, j), *range(end, n_layer)], n_layer) if end <= n_layer else None


@dataclass(frozen=True)
class Wishes:
    """What a user asks a sweep to try. Without any window all are taken.

    every    all windows
    windows  texts for `some_windows`
    skip     leave windows out; swap exchanges each with the next; times runs each so often. Without these it runs twice
    listed   a file with routes
    """

    every: bool = False
    windows: Sequence[str] = ()
    skip: bool = False
    swap: bool = False
    times: int = 0
    listed: Path | None = None

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.every or self.windows or self.skip or self.swap or self.times or self.listed)


def planned(wishes: Wishes, n_layer: int) -> list[Route]:
    """The routes of a plan, the model's own order first, each once. SweepError or RouteError for words that cannot be read."""
    routes: list[Route] = [Route.identity(n_layer)]
    if wishes.listed:
        routes += routes_of_file(wishes.listed, n_layer)
    actions: list[Callable[[Window], Route | None]] = []
    if wishes.skip:
        actions.append(lambda window: skipped(window, n_layer))
    if wishes.swap:
        actions.append(lambda window: swapped(window, n_layer))
    if wishes.times:
        actions.append(lambda window: repeated(window, n_layer, wishes.times))
    if not actions and not (wishes.every or wishes.windows):
        return unique(routes)
    windows = [window for words in wishes.windows for window in some_windows(words, n_layer)]
    if wishes.every or not windows:
        windows += every_window(n_layer)
    for act in actions or [lambda window: repeated(window, n_layer)]:
        routes += [route for window in windows if (route := act(window))]
    return unique(routes)


def unique(routes: Iterable[Route]) -> list[Route]:
    """The routes, each once, in the order in which they come first."""
    return list(dict.fromkeys(routes))


def window_of(route: Route) -> Window | None:
    """(i, j) if the route is the model's own order with one window run twice; (0, 0) if it is that order; else None."""
    extra = len(route.layers) - route.n_layer
    if route.is_identity:
        return 0, 0
    j = next((p for p, layer in enumerate(route.layers) if layer != p), route.n_layer)
    i = j - extra
    return (i, j) if 0 <= i < j <= route.n_layer and repeated((i, j), route.n_layer) == route else None


def routes_of_file(path: Path, n_layer: int) -> list[Route]:
    """The routes of a file: one text a line with `#` comments, or a JSON list of texts, lists of blocks, or records.

    A record has its blocks under `layers` or `layer_indices`, or a text under `spec` or `route`, or a pair i, j under `key`.
    SweepError names the line or the entry that cannot be read.
    """
    text = text_of(path)
    if text.lstrip().startswith("["):
        return routes_of_json(path, text, n_layer)
    routes = []
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].strip():
            try:
                routes.append(Route.parse(words, n_layer))
            except RouteError as error:
                raise SweepError(f"{path}, line {number}: {str(error).removeprefix('--route ')}") from None
    if not routes:
        raise SweepError(f"{path}: holds no route; write one a line, such as blocks:5,7")
    return routes


def routes_of_json(path: Path, text: str, n_layer: int) -> list[Route]:
    """The routes of a JSON list, as `routes_of_file` reads it."""
    entries = from_json(text, str(path), SweepError, "write a list of routes")
    try:
        return [route_of_entry(entry, n_layer) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise SweepError(f"{path}: not a list of routes in JSON ({error}); write texts, or records with layers or key") from None
    except RouteError as error:
        raise SweepError(f"{path}: {str(error).removeprefix('--route ')}") from None


def route_of_entry(entry: Any, n_layer: int) -> Route:
    """One entry of a JSON list. KeyError or TypeError if it is none, RouteError if it does not fit."""
    if isinstance(entry, dict):
        for name in ("layers", "layer_indices", "route", "spec"):
            if name in entry:
                return Route.of(entry[name], n_layer)
        i, j = entry["key"]
        return Route.parse(f"blocks:{i},{j}", n_layer)
    if not isinstance(entry, str | list):
        raise TypeError(f"{entry!r} is no route")
    return Route.of(entry, n_layer)
