"""How far an engine may be from a golden: the noise that was measured when it was recorded, times a factor. Nothing is run here."""

from collections.abc import Mapping

from .allowances import FLOOR, OF_CLASSES, OF_FLOATS
from .golden import Golden

OWN = "own"  # the noise between two engines that round alike
EXACT, FLOATS = "oracle", ("oracle", "reference")
ROUND = ("reference", "f16", "fast", "llamacpp", "bf16")  # engines by what they round; see golden_noise.ENGINES


def allowed(golden: Golden, tap: str, engine: str, alike: bool) -> float:
    """The largest NMSE that rounding explains between a right engine and a golden; infinite where that was not measured.

    engine  what the other one rounds, one of ROUND
    alike   it computes in the same arithmetic as the golden's
    """
    mine = str(golden.said["engine"]["rounds"])
    factor = OF_FLOATS if {mine, engine} <= set(FLOATS) else OF_CLASSES
    noise = golden.floor(OWN, tap) if alike else golden.floor(mine, tap) + golden.floor(engine, tap)
    return factor * noise + FLOOR


def engine_named_or_own(golden: Golden, rounds: str) -> tuple[str, bool]:
    """What an engine is taken to round, and whether that is as the golden's does: (one of ROUND, alike).

    rounds  one of ROUND; empty for what the golden's engine rounds. A float64 golden is held against float32 then
    """
    mine = str(golden.said["engine"]["rounds"])
    return (rounds, False) if rounds else ("reference", False) if mine == EXACT else (mine, False)


def finest_first(noise: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The engines of ROUND that were measured, the one with the least noise first."""
    return sorted((name for name in ROUND if name in noise), key=lambda name: max(noise[name].values(), default=0.0))
