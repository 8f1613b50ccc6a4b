"""How the layers of a hybrid mix their tokens, and which of them transformers needs: a route may leave too few.

Source: transformers 5.23.0's cache_utils.py: a cache without a layer of keys has no length, and a model that asks for it fails.
OLMo Hybrid's configuration wants a layer of both kinds. tests/test_live_places.py runs such routes.
"""

from collections.abc import Sequence
from typing import Any

from .folders import FACTS, KINDS
from .rules import FULL, LINEAR, Home, Rule

KEYLESS = {LINEAR, "conv", "mamba", "recurrent"}  # kinds whose state has no keys, and so no length
BOTH = {"olmo_hybrid"}  # whose configuration wants a layer without keys, too
LISTS = (KINDS, "layers_block_type", "block_types")


# By model type, where another key says it than those of LISTS.
OTHERWISE: dict[str, Rule] = {
    "bamba": lambda home, n: [FULL if said else LINEAR for said in FACTS["bamba"][0].read(home, n)],
    "jamba": lambda home, n: [FULL if said == "attention" else LINEAR for said in FACTS["jamba"][0].read(home, n)],
}


def mixers(name: str, home: Home, n: int) -> list[Any]:
    """How each layer mixes its tokens; empty if nothing says so.

    name  the model type
    home  the part of the configuration with the number of layers
    """
    listed = next((fact for fact in FACTS.get(name, ()) if fact.name in LISTS), None)
    if listed:
        return listed.read(home, n)
    said = next((home[key] for key in LISTS if isinstance(home.get(key), list) and len(home[key]) == n), None)
    if said is not None:
        return list(said)
    return OTHERWISE[name](home, n) if name in OTHERWISE else []


def left_alone(name: str, home: Home, n: int, layers: Sequence[int]) -> str:
    """Why transformers does not run these layers of a hybrid; empty if it does.

    n       how many layers the source has
    layers  which of them the copy has
    """
    kinds = mixers(name, home, n)
    keyless = [kind in KEYLESS for kind in kinds]
    if not kinds or all(keyless) or not any(keyless):
        return ""
    kept = {keyless[layer] for layer in layers}
    only = " and ".join(sorted({str(kinds[layer]) for layer in layers}))
    if kept == {True}:
        return f"transformers does not run a hybrid without a layer that has keys, and this has only {only} layers"
    if kept == {False} and name in BOTH:
        return f"transformers does not load a model of type {name} with layers of one kind, and this has only {only} layers"
    return ""
