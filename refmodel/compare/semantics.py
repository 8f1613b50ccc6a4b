"""What a run computes, in words and numbers that can be compared with another run's: formulas, sizes, constants."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..model.model import Model
from .other_side import Other

# The unit norm of llama.cpp's own operation of that name, which its graphs of the delta rule no longer have
BY_OPERATION: Mapping[str, tuple[str, str]] = {"L2_NORM": ("unit norm", "x / max(sqrt(sum(x^2)), eps)")}


def semantics(model: Model, other: Other | None = None) -> dict[str, Any]:
    """What a pass of this model computes, name -> text, number or list: what a golden needs to keep its meaning.

    other  a recorded run: what its own operations show instead
    """
    found: dict[str, Any] = dict(model.arch.FACTS.semantics)
    if not model.hp.n_expert:
        found.pop("experts", None)
    found |= dict(flat("", asdict(model.hp)))
    operations = set(other.operations.values()) if other else set()
    for operation, (name, formula) in BY_OPERATION.items():
        if operation in operations and name in found:
            found[name] = formula
    return found


def flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The hyperparameters that say something, one name each: `rope.base` for that of a record in the record."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(f"{prefix}{name}.", value)
        elif value not in (0, (), None, False):
            yield f"{prefix}{name}", [x if x != float("inf") else None for x in value] if isinstance(value, tuple) else value


def misfits(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two runs compute otherwise, a phrase each: `eps: recorded 1e-06, now 1e-05`."""
    return [
        f"{name}: recorded {shown(recorded.get(name))}, now {shown(now.get(name))}"
        for name in dict.fromkeys([*recorded, *now])
        if recorded.get(name) != now.get(name)
    ]


def shown(value: Any) -> str:
    """A value in a message: at most 60 characters; nothing for a name that is missing."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
