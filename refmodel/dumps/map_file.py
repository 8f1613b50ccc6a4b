"""`--map`: a user's own table of names, in TOML.

[[map]]
pattern = "dec(\\\\d+)/out"   # a regular expression that the whole name matches
tap = "l_out-{0}"            # its groups by number
layer_offset = -1            # added to every group that is a number
axes = [1, 0, 2]             # the order of axes that puts tokens first, after axes of length 1 are dropped
heads = "grouped heads"      # or "tiled heads", "pairs in halves": how the program has them, where the file has them otherwise
dtype = "bf16"               # what the numbers were rounded to
tokens = [0, 5]              # which tokens of the call it has: the first, and the one after the last
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DumpError
from ..machine.boundary import handed
from ..machine.files import text_of
from .dump import BITS, WORDS

KNOWN = {"pattern", "tap", "layer_offset", "axes", "heads", "dtype", "tokens"}
GROUP = re.compile(r"\{(\d{1,3})\}")
BLOCK_OF_TAP = re.compile(r"(.+?-)(\d+)((?:#\d+)?(?:@\d+)?)")
HEADS = ("grouped heads", "tiled heads", "pairs in halves")


@dataclass(frozen=True)
class Rule:
    """One entry of a map.

    pattern  a regular expression for the whole of a foreign name
    tap      a template; {0} is the pattern's first group
    offset   added to groups that are numbers
    axes     the order of axes, empty for as they are
    heads    one of HEADS, or empty
    dtype    a key of BITS, or empty for what the array says
    tokens   (first, after the last) of the call, or None
    """

    pattern: "re.Pattern[str]"
    tap: str
    offset: int = 0
    axes: tuple[int, ...] = ()
    heads: str = ""
    dtype: str = ""
    tokens: tuple[int, int] | None = None

    def tap_of(self, name: str) -> str | None:
        """The tap of a foreign name; None if the pattern does not match it."""
        match = self.pattern.fullmatch(name)
        if not match:
            return None
        groups = [str(int(g) + self.offset) if g and g.isdigit() else g or "" for g in match.groups()]
        return GROUP.sub(lambda found: groups[int(found[1])], self.tap)


def read_map(path: Path) -> Sequence[Rule]:
    """The rules of a map, in order. DumpError for a file that is not such a map; it names the entry."""
    with handed("the TOML parser", f"--map {path}", DumpError, "docs/formats.md shows a map"):
        said = tomllib.loads(text_of(path))
    listed = said.get("map")
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise DumpError(f"--map {path}: has no [[map]] entries; docs/formats.md shows one")
    return [rule(f"--map {path}: entry {i}", entry) for i, entry in enumerate(listed, 1)]


def rule(where: str, entry: dict[str, Any]) -> Rule:
    """One entry as a Rule. DumpError if a value cannot be, or a key is not known."""
    if odd := sorted(entry.keys() - KNOWN):
        raise DumpError(f"{where}: {odd[0]} is not a key of a map; known are {', '.join(sorted(KNOWN))}")
    if not isinstance(entry.get("pattern"), str) or not isinstance(entry.get("tap"), str):
        raise DumpError(f"{where}: needs a pattern and a tap, both text")
    try:
        pattern = re.compile(entry["pattern"])
    except (re.error, OverflowError, RecursionError) as error:
        raise DumpError(f"{where}: its pattern is no regular expression ({error}); correct it") from None
    if any(int(group) >= pattern.groups for group in GROUP.findall(entry["tap"])):
        raise DumpError(
            f"{where}: {entry['tap']} names a group that the pattern does not have; {{0}} is the first of {pattern.groups}"
        )
    offset: Any = entry.get("layer_offset", 0)
    axes: Any = entry.get("axes", [])
    heads, tokens = str(entry.get("heads", "")), entry.get("tokens")
    dtype = WORDS.get(str(entry.get("dtype", "")).lower(), str(entry.get("dtype", "")).upper())
    good = isinstance(offset, int) and isinstance(axes, list) and sorted(map(str, axes)) == sorted(map(str, range(len(axes))))
    if not good or heads not in ("", *HEADS) or not (dtype == "" or dtype in BITS) or not (tokens is None or is_pair(tokens)):
        raise DumpError(
            f"{where}: layer_offset is a number, axes an order such as [1, 0, 2], heads one of {', '.join(HEADS)}, "
            f"dtype one of {', '.join(BITS)}, tokens two numbers such as [0, 5]; correct it"
        )
    return Rule(pattern, entry["tap"], offset, tuple(axes), heads, dtype, (tokens[0], tokens[1]) if tokens else None)


def is_pair(tokens: Any) -> bool:
    """Whether a value is two whole numbers, the first below the second."""
    return isinstance(tokens, list) and len(tokens) == 2 and all(isinstance(t, int) for t in tokens) and 0 <= tokens[0] < tokens[1]


def as_toml(rules: Sequence[Rule]) -> str:
    """Rules as the text of a map, which `read_map` reads."""
    out = list[str]()
    for one in rules:
        out += ["[[map]]", f"pattern = {json.dumps(one.pattern.pattern)}", f"tap = {json.dumps(one.tap)}"]
        out += [f"layer_offset = {one.offset}"] * bool(one.offset)
        out += [f"axes = {list(one.axes)}"] * bool(one.axes)
        out += [f"heads = {json.dumps(one.heads)}"] * bool(one.heads)
        out += [f"tokens = {list(one.tokens or ())}"] * bool(one.tokens)
        out.append("")
    return "\n".join(out)


def together(rules: Mapping[str, Rule]) -> list[Rule]:
    """Rules of single names, name -> rule, with those made one that differ only in a block's number: `dec3_out` and `dec4_out`.

    A rule that is made of several matches no other name.
    """
    out, left = list[Rule](), dict(rules)
    groups: dict[tuple[Any, ...], dict[str, Rule]] = {}
    for name, one in rules.items():
        block = BLOCK_OF_TAP.fullmatch(one.tap)
        for digits in re.finditer(r"\d+", name) if block else ():
            offset = int(block[2]) - int(digits[0]) if block else 0
            pattern = f"{re.escape(name[: digits.start()])}(\\d+){re.escape(name[digits.end() :])}"
            tap = f"{block[1]}{{0}}{block[3]}" if block else ""
            groups.setdefault((pattern, tap, offset, one.axes, one.heads, one.tokens), {})[name] = one
    for (pattern, tap, offset, axes, heads, tokens), members in sorted(groups.items(), key=lambda group: -len(group[1])):
        matching = {name for name in rules if re.fullmatch(pattern, name)}
        if len(members) > 1 and matching == set(members) and matching <= left.keys():
            out.append(Rule(re.compile(pattern), tap, offset, axes, heads, "", tokens))
            left = {name: one for name, one in left.items() if name not in members}
    return [*out, *left.values()]
