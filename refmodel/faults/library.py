"""All faults by name, and for which architectures each of them makes sense."""

from difflib import get_close_matches
from functools import cache

from ..arch import ARCHITECTURES
from ..errors import RefmodelError
from ..model.made import small
from ..model.model import Model
from ..numerics import NUMPY
from . import (
    attention,
    conv,
    delta,
    delta_parts,
    experts,
    frequencies,
    heads,
    loading,
    norms,
    quantization,
    rope,
    state,
    surgery,
    tokens,
    wiring,
)
from .fault import Engine, Fault

FAMILIES = (
    rope,
    frequencies,
    attention,
    heads,
    norms,
    delta,
    delta_parts,
    conv,
    state,
    experts,
    wiring,
    loading,
    quantization,
    surgery,
    tokens,
)
FAULTS: dict[str, Fault] = {fault.name: fault for family in FAMILIES for fault in family.FAULTS}


def named(words: str) -> list[Fault]:
    """The faults of a class, `F12`, or the one of that name. RefmodelError, with the nearest name, if there is none."""
    found = [fault for fault in FAULTS.values() if words.upper() == fault.id or words == fault.name]
    if not found:
        near = get_close_matches(words, [*FAULTS, *{fault.id for fault in FAULTS.values()}], 1)
        hint = f"did you mean {near[0]}?" if near else "`refmodel faults` lists them"
        raise RefmodelError(f"{words[:60]}: no fault of this name or number; {hint}")
    return found


def the_one(words: str) -> Fault:
    """The fault of that name, or of a class that has one form. RefmodelError if there is none, or the class has several."""
    found = named(words)
    if len(found) > 1:
        raise RefmodelError(f"{words}: has {len(found)} forms; name one: {', '.join(fault.name for fault in found)}")
    return found[0]


@cache
def samples() -> tuple[Model, ...]:
    """A small model of each architecture, in memory, as typical files have them."""
    return tuple(Model(small(name)) for name in ARCHITECTURES)


@cache
def architectures(name: str) -> tuple[str, ...]:
    """The architectures for which a fault makes sense: those in whose typical models it makes a difference."""
    fault = FAULTS[name]
    return tuple(model.architecture for model in samples() if fault.types or fault.on(Engine(model, NUMPY)))
