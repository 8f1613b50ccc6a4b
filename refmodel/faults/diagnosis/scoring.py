"""How well a run explains the other side's numbers: what is left, measured by what rounding or noise explains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...arrays import F
from ...compare.other_side import Other
from .judging import Judged
from .running import Seen
from .span import Span

LEFT = 1e-12  # NMSE that is almost nothing
MOST = 0.03  # NMSE of noise: what is larger than that is not taken for noise
FINE = 1e-13  # NMSE below which two float32 runs are one: a thousandth of the least that is ever allowed is FLOOR


@dataclass(frozen=True)
class Scale:
    """What is explained without a fault.

    allowed  tap -> the largest NMSE that rounding explains
    noise    tap -> the NMSE that rounding was measured to make
    span     of the head's columns, where only logits are there
    logits   tap of logits -> theirs, as Span.of gives them
    outside  what of theirs lies outside of the span, for each degree of freedom: mean square. 0 without a span
    """

    allowed: Mapping[str, float]
    noise: Mapping[str, float]
    span: Span | None = None
    logits: Mapping[str, F] = field(default_factory=dict)
    outside: float = 0.0


def scale_of(judged: Judged, other: Other, span: Span | None) -> Scale:
    """The scale of a judged healthy run: what the class of rounding explains that was found, and the noise of the finest."""
    logits = {tap: span.of(rows_of(other.taps[tap])) for tap in other.taps if tap.startswith("result_output")} if span else {}
    finite = [x for x in logits.values() if np.isfinite(x).all()]
    outside = span.parts(np.concatenate(finite))[1] if span and finite else 0.0
    noise = {tap: max(judged.floor.get(tap, 0.0), FINE) for tap in judged.allowed}
    return Scale(judged.allowed, noise, span, logits, outside)


def rows_of(x: F) -> F:
    """Logits as [T, V]."""
    return x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class Score:
    """What a run leaves.

    wrong     taps with more than rounding explains
    cost      the sum over taps of log10(NMSE / noise), at least 0 each: the less, the better
    residual  the mean NMSE of all taps
    white     whether the logits' error is noise without structure, or almost nothing
    inside    mean square of the logits' error in the span, for each degree of freedom; NaN without a span
    outside   the same outside of it
    freedom   degrees of freedom of `inside`
    """

    wrong: tuple[str, ...]
    cost: float
    residual: float
    white: bool = False
    inside: float = np.nan
    outside: float = np.nan
    freedom: int = 0

    @property
    def explains(self) -> bool:
        """Whether nothing is left but rounding, or noise without structure. Of logits alone noise can be told from the rest."""
        return self.white or (not self.wrong and not self.freedom)


def score(seen: Seen, scale: Scale, taps: Sequence[str] | None = None) -> Score:
    """Score a run on those taps; None for all that have a scale."""
    chosen = [tap for tap in (scale.allowed if taps is None else taps) if tap in seen.nmse]
    wrong = tuple(tap for tap in chosen if not seen.nmse[tap] <= scale.allowed[tap])
    cost = sum(np.log10(max(min(seen.nmse[tap], 1e6) / scale.noise[tap], 1.0)) for tap in chosen)
    residual = float(np.mean([min(seen.nmse[tap], 1e6) for tap in chosen])) if chosen else float("inf")
    if scale.span is None or not scale.logits or any(tap not in seen.ours for tap in scale.logits):
        return Score(wrong, float(cost), residual)
    return spanned(Score(wrong, float(cost), residual), seen, scale, scale.span)


def spanned(plain: Score, seen: Seen, scale: Scale, span: Span) -> Score:
    """The score of a run of which only logits are known: what is left in the span, against what is left outside.

    A run with another head has numbers outside of the span, too, which are no noise of theirs.
    """
    errors = []
    for tap, theirs in scale.logits.items():
        ours = span.of(rows_of(seen.ours[tap]))
        if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            return replace(plain, cost=np.inf, freedom=1)
        errors.append(ours - theirs)
    error = np.concatenate(errors)
    inside, outside = span.parts(error)
    left, noise = inside + max(outside - scale.outside, 0.0), min(outside, scale.outside)
    rows, columns = span.basis.shape
    freedom = len(error) * columns
    noisy = noise * (1 + 5 * np.sqrt(2 / freedom + 2 / (len(error) * (rows - columns))))  # both are estimates
    energy = float(np.mean([np.mean(x * x) for x in scale.logits.values()]))
    white = left <= max(noisy * (noise < MOST * energy), LEFT * energy)
    cost = freedom / 2 * np.log(max(left, 1e-30) / max(noise, 1e-14 * energy, 1e-30))
    return Score(plain.wrong, float(cost), plain.residual, bool(white), left, outside, freedom)
