"""The route of a file, only from the hashes of its tensors; and what its metadata and its name claim instead."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RouteError
from ..model.route import Route
from .copy_map import block_of
from .samples import distance, nearness, samples
from .values import FLOATS, Stored, floats, word

THREADS = 2  # hashing is as fast as reading with two


def digests(
    tensors: Mapping[str, Stored], seen: Callable[[int], None] = lambda count: None, by_value: bool = False
) -> dict[str, str]:
    """Tensor name -> sha256 of its bytes; with `by_value`, floats are hashed as float32 values.

    seen  gets the number of bytes just read
    """

    def digest(name: str) -> tuple[str, str]:
        t, found = tensors[name], hashlib.sha256()
        if by_value and word(t.type) in FLOATS:
            for rows in floats(t):
                found.update(rows.data)
        else:
            found.update(t.data.data)
        seen(t.data.size)
        return name, found.hexdigest()

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            return dict(pool.map(digest, tensors))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def compared(copy: Mapping[str, Stored], source: Mapping[str, Stored]) -> tuple[dict[str, str], dict[str, str]]:
    """The digests of both; by value if floats were saved in another type."""
    kinds = [{word(t.type) for t in tensors.values()} & FLOATS for tensors in (copy, source)]
    return digests(copy, by_value=kinds[0] != kinds[1]), digests(source, by_value=kinds[0] != kinds[1])


@dataclass(frozen=True)
class Match:
    """Which block of the source a block of a file is.

    sources  the source blocks that have all its tensors, ascending; several only if the source has equal blocks
    nearest  the source block that has most of its tensors; None if none or several have
    common   how many tensors it shares with the nearest
    total    how many tensors it has
    values   whether the nearest is known only by the values of its small tensors, or of rows
    close    how many tensors have another type than those of the nearest, and values within the error of that type, where that
             and the hashes account for all of them; else 0
    """

    block: int
    sources: Sequence[int]
    nearest: int | None
    common: int
    total: int
    values: bool = False
    close: int = 0

    @property
    def likely(self) -> Sequence[int]:
        """The source blocks that it is, or else the nearest one."""
        return self.sources or ([] if self.nearest is None else [self.nearest])

    def describe(self) -> str:
        """The same in words."""
        if self.close:
            return f"block {self.block} is source block {self.nearest}, {self.close} of its {self.total} tensors in other types"
        if self.sources:
            return f"block {self.block} is source block {' or '.join(map(str, self.sources))}"
        if self.values:
            known = f"by the values of its norms or rows it is nearest to block {self.nearest}"
            return f"block {self.block} has no tensor of the source; {known}"
        if self.nearest is None:
            return f"block {self.block} is no block of the source: none of its {self.total} tensors tells which"
        return f"block {self.block} has {self.common} of {self.total} tensors of source block {self.nearest}, and no block has all"


@dataclass(frozen=True)
class Recovery:
    """What the hashes say of a file.

    matches  one for each block, prediction blocks included
    behind   how many of the source's blocks predict further tokens; they are last in the copy
    n_layer  blocks of the source's trunk
    """

    matches: Sequence[Match]
    behind: int
    n_layer: int

    @property
    def trunk(self) -> Sequence[Match]:
        """The matches without prediction blocks."""
        return self.matches[: len(self.matches) - self.behind]

    @property
    def exact(self) -> bool:
        """Whether every block of the trunk is a whole block of the source's trunk."""
        return bool(self.trunk) and all(any(source < self.n_layer for source in m.sources) for m in self.trunk)

    @property
    def known(self) -> bool:
        """Whether every block of the trunk is one of the source's trunk, whole or in other types."""
        return bool(self.trunk) and all(m.close or any(source < self.n_layer for source in m.sources) for m in self.trunk)

    @property
    def route(self) -> Route | None:
        """The route, if every block is nearer to one block of the source than to all others; else None.

        Of equal source blocks it takes the one after the block before, or else the first.
        """
        found = self.partial
        known = [layer for layer in found if layer is not None]
        return Route.of(known, self.n_layer) if found and len(known) == len(found) else None

    @property
    def partial(self) -> list[int | None]:
        """The source block of each block of the trunk; None where that is not known."""
        layers: list[int | None] = []
        for match in self.trunk:
            known = [source for source in match.likely if source < self.n_layer]
            after = (layers[-1] + 1) if layers and layers[-1] is not None else -1
            layers.append(after if after in known else known[0] if known else None)
        return layers

    def fits(self, route: Route) -> bool:
        """Whether the hashes allow this route: the same blocks, or blocks equal to them."""
        if len(route.layers) != len(self.trunk):
            return False
        return all(layer in match.likely for layer, match in zip(route.layers, self.trunk, strict=True))


def recover(copy: Mapping[str, str], source: Mapping[str, str], prefixes: tuple[str, str], n_layer: int, behind: int) -> Recovery:
    """Find for each block of a file the source block whose tensors have its hashes.

    copy, source  tensor name -> hash
    prefixes      the part of a name before the number of a block, in the copy and in the source
    """
    ours, theirs = by_block(copy, prefixes[0]), by_block(source, prefixes[1])
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for block, tensors in theirs.items():
        for held in tensors:
            holders[held].append(block)
    matches = []
    for block in range(max(ours, default=-1) + 1):
        tensors = ours.get(block, set())
        common = Counter(source for held in tensors for source in holders[held])
        (nearest, most), (_, second) = [*common.most_common(2), (None, 0), (None, 0)][:2]
        whole = sorted(b for b, n in common.items() if n == len(tensors) == len(theirs[b]))
        matches.append(Match(block, whole, nearest if most > second else None, most, len(tensors)))
    return Recovery(matches, behind, n_layer)


def recovery(
    copy: Mapping[str, Stored], source: Mapping[str, Stored], prefixes: tuple[str, str], n_layer: int, behind: int
) -> tuple[Recovery, dict[str, str], dict[str, str]]:
    """The recovery of a file by the digests of its tensors, then by values where digests fail; and the digests of both files."""
    ours, theirs = compared(copy, source)
    return by_values(recover(ours, theirs, prefixes, n_layer, behind), copy, source, prefixes), ours, theirs


def by_values(found: Recovery, copy: Mapping[str, Stored], source: Mapping[str, Stored], prefixes: tuple[str, str]) -> Recovery:
    """A recovery in which blocks without a tensor of the source are recognized by the values of their vectors, if possible.

    Blocks without vectors, whose norms have no weights, are recognized by rows of their matrices.
    """
    if all(match.likely for match in found.matches):
        return found
    ours, theirs = (samples(tensors, prefix) for tensors, prefix in zip((copy, source), prefixes, strict=True))
    matches = []
    for match in found.matches:
        distances = sorted((distance(ours.get(match.block, {}), theirs[block]), block) for block in theirs)
        near = [block for far, block in distances if far < nearness(ours.get(match.block, {}))]
        clear = len(distances) < 2 or distances[1][0] > 4 * distances[0][0]
        known = near[0] if near and clear and not match.likely else None
        matches.append(match if known is None else replace(match, nearest=known, values=True))
    return replace(found, matches=matches)


def by_block(hashes: Mapping[str, str], prefix: str) -> dict[int, set[tuple[str, str]]]:
    """Block -> (name without prefix and number, hash) of its tensors."""
    out: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for name, digest in hashes.items():
        if (block := block_of(name, prefix)) is not None:
            out[block].add((name.removeprefix(f"{prefix}{block}."), digest))
    return dict(out)


@dataclass(frozen=True)
class Claim:
    """What a file says of its own route, outside of its tensors.

    where   a metadata key, or the file's name
    words   as they are there
    routes  a reading of the words -> the route, or why it is none
    """

    where: str
    words: str
    routes: Mapping[str, Route | str]

    def verdict(self, found: Recovery) -> tuple[bool, str]:
        """Whether any reading agrees with the hashes, and a sentence that says so."""
        for reading, route in self.routes.items():
            if isinstance(route, Route) and found.fits(route):
                return True, f"{self.where} says {self.words}, {reading} {route.canonical}: right"
        read = "; ".join(f"{how} {r.canonical if isinstance(r, Route) else r}" for how, r in self.routes.items())
        is_ = found.route.canonical if found.route else "no route of this source"
        return False, f"{self.where} says {self.words} ({read}), but the tensors are {is_}"


# rys_27-30, RYS-10-13, rys_12_15, Qwen3.5-4B-rys_28-31_eq: no two authors mean the same by the second number.
NAMED = re.compile(r"rys[-_](\d{1,4})[-_](\d{1,4})(?![\d])", re.IGNORECASE)


def claims_of_name(where: str, name: str, n_layer: int) -> list[Claim]:
    """Both readings of two numbers in a name: with the last block included, or as a half-open window."""
    return [
        Claim(
            where,
            match[0],
            {
                "with its end included": attempt(f"blocks:{match[1]},{int(match[2]) + 1}", n_layer),
                "half-open": attempt(f"blocks:{match[1]},{match[2]}", n_layer),
            },
        )
        for match in NAMED.finditer(name)
    ]


def claim(where: str, words: Any, n_layer: int) -> Claim:
    """The route in a metadata key: in one of our notations, or as a list of source blocks."""
    shown = str(words) if len(str(words)) < 100 else str(words)[:97] + "…"
    return Claim(where, shown, {"that is": attempt(words, n_layer)})


def claims_of_sources(claims: Callable[[int], list[Claim]], counts: Sequence[int]) -> list[Claim]:
    """What a file says of its own route, if it was made of one of several sources whose blocks are numbered one after the other.

    claims  how many blocks a source has -> the claims
    counts  how many blocks each has
    """
    if len(counts) == 1:
        return claims(counts[0])
    out: dict[tuple[str, str], Claim] = {}
    for k, n in enumerate(counts):
        for one in claims(n):
            said = {f"{how}, of source {k + 1}:": moved(route, sum(counts[:k]), sum(counts)) for how, route in one.routes.items()}
            before = out.get((one.where, one.words))
            out[one.where, one.words] = replace(one, routes={**(before.routes if before else {}), **said})
    return list(out.values())


def moved(route: Route | str, first: int, n_layer: int) -> Route | str:
    """A route of a source whose blocks begin at `first` of `n_layer`; words stay as they are."""
    return Route.of([layer + first for layer in route.layers], n_layer) if isinstance(route, Route) else route


def attempt(value: Any, n_layer: int) -> Route | str:
    """The route of these words or numbers, or why it is none."""
    try:
        return Route.of(value if isinstance(value, str) else list(value), n_layer)
    except (RouteError, TypeError):
        return f"no route of {n_layer} blocks"


def claims_of_path(path: Path, n_layer: int) -> list[Claim]:
    """The claims of a file's name."""
    return claims_of_name("the file's name", path.name, n_layer)
