"""The words of the table: how transformers' class learns a fact about each layer, and how a copy can say it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import MetadataError

Home = Mapping[str, Any]  # the part of a config.json that has num_hidden_layers
Rule = Callable[[Home, int], list[Any]]  # a config, how many layers -> one value for each

FULL, SLIDING, LINEAR, CHUNKED = "full_attention", "sliding_attention", "linear_attention", "chunked_attention"
DENSE, SPARSE = "dense", "sparse"


@dataclass(frozen=True)
class Fact:
    """One thing in which the layers of a model differ.

    name   its name in messages: the key of its list, or of its number
    read   (config, number of layers) -> the value of each layer, as transformers' class derives it
    write  (config, values) -> the keys that express these values; empty if the format cannot express them
    keys   further keys of the config that only serve to derive it
    """

    name: str
    read: Rule
    write: Callable[[Home, Sequence[Any]], dict[str, Any]]
    keys: tuple[str, ...] = ()


def listed(name: str, otherwise: Rule, *keys: str, last: str = "") -> Fact:
    """A fact with a list under `name`, or else derived by a rule. `last`: the value that the class always gives the last layer."""

    def read(home: Home, n: int) -> list[Any]:
        values = list(home[name]) if isinstance(home.get(name), list) else otherwise(home, n)
        return [*values[:-1], last] if last and values else values

    return Fact(name, read, lambda home, values: {name: list(values)}, keys)


def leading(name: str, default: int) -> Fact:
    """A fact with a number: the first layers are dense. A copy can express it only if its dense layers come first."""
    rule = lead(name, default)
    return Fact(name, rule, lambda home, values: {name: list(values).count(DENSE)})


def numbers(name: str, otherwise: Callable[[Home, int], Sequence[int]], *keys: str) -> Fact:
    """A fact with a list of layer numbers: those for which it is true."""

    def read(home: Home, n: int) -> list[Any]:
        some = home[name] if isinstance(home.get(name), list) else otherwise(home, n)
        return [i in some for i in range(n)]

    return Fact(name, read, lambda home, values: {name: [i for i, is_so in enumerate(values) if is_so]}, keys)


def sparse_steps() -> Fact:
    """Every decoder_sparse_step-th layer has experts, except those in mlp_only_layers; a copy lists its dense layers."""

    def read(home: Home, n: int) -> list[Any]:
        step, dense = number(home, "decoder_sparse_step", 1), home.get("mlp_only_layers") or []
        return [SPARSE if i not in dense and (i + 1) % step == 0 else DENSE for i in range(n)]

    def write(home: Home, values: Sequence[Any]) -> dict[str, Any]:
        stepped = {"decoder_sparse_step": 1} if "decoder_sparse_step" in home else {}
        return stepped | {"mlp_only_layers": [i for i, kind in enumerate(values) if kind == DENSE]}

    return Fact("mlp_only_layers", read, write, ("decoder_sparse_step",))


def cycle(name: str, default: Sequence[str]) -> Fact:
    """A fact with a list that is repeated up to the number of layers; a copy lists all."""

    def read(home: Home, n: int) -> list[Any]:
        pattern = home.get(name) or default
        return [pattern[i % len(pattern)] for i in range(n)]

    return Fact(name, read, lambda home, values: {name: list(values)})


def unsaid(name: str, rule: Rule, *keys: str) -> Fact:
    """A fact that only numbers express: a copy is written if the source's numbers fit it, and refused otherwise."""
    return Fact(name, rule, lambda home, values: {}, (name, *keys))


def every(period: int, key: str = "", *, miss: Any = SLIDING, hit: Any = FULL, first: bool = False) -> Rule:
    """A rule: every period-th layer is `hit`, the others `miss`.

    key    the config may name another period under it
    first  the first layer of each period is the `hit`, not the last
    """

    def rule(home: Home, n: int) -> list[Any]:
        p = number(home, key, period)
        return [hit if (i if first else i + 1) % p == 0 else miss for i in range(n)]

    return rule


def lead(key: str, default: int) -> Rule:
    """A rule: the first `default` layers are dense; the config may name another number under a key."""
    return lambda home, n: [DENSE if i < number(home, key, default, least=0) else SPARSE for i in range(n)]


def alike(value: Any) -> Rule:
    """A rule: all layers have this value."""
    return lambda home, n: [value] * n


def windowed_from(first: int, window: int | None = 4096, switch: bool = True) -> Rule:
    """A rule: layers from max_window_layers on slide, if any do.

    first   the default of max_window_layers
    window  the default of sliding_window
    switch  whether they slide only if use_sliding_window is true
    """

    def rule(home: Home, n: int) -> list[Any]:
        slides = home.get("sliding_window", window) is not None and (bool(home.get("use_sliding_window")) or not switch)
        start = number(home, "max_window_layers", first, least=0)
        return [SLIDING if slides and i >= start else FULL for i in range(n)]

    return rule


def number(home: Home, key: str, default: int, least: int = 1) -> int:
    """A whole number of the config. MetadataError if it is none, or below `least`."""
    value = home.get(key) if key else default
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MetadataError(
            f"config.json: {key} is {json.dumps(value)}; expected a whole number from {least} on. List the kinds instead."
        )
    return value


def settled(where: str, home: Home, facts: Sequence[Fact], wanted: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The configuration of a copy that gives each layer what is wanted: one list of values for each fact.

    Kinds that differ are always written as a list if the format has one. MetadataError if the format cannot express them.
    """
    out, n = dict(home), len(wanted[0]) if wanted else 0
    for fact, values in zip(facts, wanted, strict=True):
        several = any(value != values[0] for value in values)
        if fact.read(out, n) != values or (several and fact.name not in out):
            out |= fact.write(out, values)
    for fact, values in zip(facts, wanted, strict=True):
        for layer, (found, right) in enumerate(zip(fact.read(out, n), values, strict=True)):
            if found != right:
                raise MetadataError(
                    f"{where}: {fact.name} says what a layer is by its place, and cannot say this route: layer {layer} of the copy "
                    f"would be {json.dumps(found)}, its source is {json.dumps(right)}. refmodel and transformers "
                    "run the route without a copy."
                )
    return out
