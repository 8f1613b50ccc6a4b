"""Compare a forward pass, as it runs, with a recorded one: a row for each tap, and a closer look at the logits."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..arrays import F
from ..forward.taps import in_call
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from ..notebook import html_of
from ..numerics import Numerics
from .by_token import Choices, likeliest, token_errors
from .rows import LogitRow, Row, compare, compare_logits, squeezed, without_figures
from .views import ALL_WHOLE, View

LACKING = "ours has no tap of this name"  # why a row has no figures


@dataclass(frozen=True)
class Diff:
    """All rows in the order in which our pass made them, missing ones last, and the logits' rows.

    choices  the likeliest tokens of both sides, one for each row of logits
    errors   NMSE of each token, float64 [T], for the output of each block: tap name -> array
    """

    rows: list[Row]
    logits: list[LogitRow]
    choices: list[Choices] = field(default_factory=list)
    errors: Mapping[str, F] = field(default_factory=dict)

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        return html_of(self)


class Anchored:
    """A tapper that lets a pass go on with their numbers instead of ours.

    theirs  tap name -> array
    anchor  "block": each block starts from their output of the block before it, and in later calls also from their convolution
            and delta states and their cached keys and values; so one wrong block makes one wrong block. "node": every operation
            starts from their numbers; so one wrong operation makes one wrong row. "": nothing is replaced
    call    number of this call
    fresh   its tokens

    partial names of arrays that have not all numbers, so that nothing can go on with them

    An array of another shape, or with a number that is not finite, replaces nothing.
    """

    def __init__(self, theirs: Mapping[str, F], anchor: str, partial: Collection[str] = ()) -> None:
        self.theirs, self.replacement, self.partial = theirs, REPLACEMENTS[anchor], partial
        self.call, self.fresh = 0, 0

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call, self.fresh = call, fresh

    def __call__(self, name: str, x: F) -> F:
        replaces, key = self.replacement(name.partition("-")[0]), in_call(name, self.call)
        if replaces is None or key not in self.theirs or key in self.partial:
            return x
        theirs = self.theirs[key]
        fits = squeezed(x.shape) == squeezed(theirs.shape) and bool(np.isfinite(theirs).all())
        return replaces(x, theirs.reshape(x.shape).astype(x.dtype), self.fresh) if fits else x


class Comparing:
    """A tapper that measures every tap against theirs and keeps none of our arrays; what comes after it may be anchored.

    theirs    tap name -> array
    anchored  called with every tap; the pass goes on with what it returns
    seen      called with the name of every tap
    views     tap name -> what of it theirs has, where that is not all
    rows      tap name -> Row, in the order of the pass
    logits    a row for each token whose logits theirs has
    choices   the likeliest tokens of each such row
    errors    tap name of a block's output -> NMSE of each token
    """

    def __init__(
        self, theirs: Mapping[str, F], anchored: Anchored, seen: Callable[[str], None], views: Mapping[str, View] = ALL_WHOLE
    ) -> None:
        self.theirs, self.anchored, self.seen, self.views = theirs, anchored, seen, views
        self.call, self.rows, self.logits = 0, dict[str, Row](), list[LogitRow]()
        self.choices, self.errors = list[Choices](), dict[str, F]()

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call = call

    def __call__(self, name: str, x: F) -> F:
        key = in_call(name, self.call)
        self.seen(name)
        if key in self.theirs:
            ours, theirs = x, self.theirs[key]
            if key in self.views:
                ours, theirs = self.views[key].settled(*self.views[key].pair(x, theirs))
            self.rows[key] = compare(key, ours, theirs)
            if name.startswith("l_out-") and key not in self.views and (errors := token_errors(ours, theirs)) is not None:
                self.errors[key] = errors
            if name == "result_output" and theirs.size == ours.size and np.isfinite(ours).all() and np.isfinite(theirs).all():
                self.note(ours, theirs.reshape(ours.shape), self.views.get(key))
        return self.anchored(name, x)

    def note(self, ours: F, theirs: F, view: View | None) -> None:
        """Keep what is known of the logits of this call, [k, V] each."""
        rows = logit_rows(ours, theirs, view)
        self.logits += rows
        pairs = zip(rows, ours, theirs, strict=True) if rows else ()
        self.choices += [Choices(self.call, row.token, likeliest(a), likeliest(b)) for row, a, b in pairs]


def logit_rows(ours: F, theirs: F, view: View | None) -> list[LogitRow]:
    """The rows of logits that theirs has, whole: [k, V] each; none where single logits are compared."""
    if view and not view.rows:
        return []
    rows = compare_logits(ours, theirs.reshape(ours.shape))
    return [replace(row, token=view.rows[row.token]) for row in rows] if view else rows


def _whole(ours: F, theirs: F, fresh: int) -> F:
    return theirs


def _past(ours: F, theirs: F, fresh: int) -> F:
    """Their cache for the tokens of earlier calls, ours for this call's."""
    return np.concatenate([theirs[: len(theirs) - fresh], ours[len(ours) - fresh :]])


ANCHORS: dict[str, Callable[[F, F, int], F]] = {
    "l_out": _whole,
    "conv_states_reshaped": _whole,
    "state_predelta": _whole,
    "cache_k": _past,
    "cache_v": _past,
}


REPLACEMENTS: dict[str, Callable[[str], Callable[[F, F, int], F] | None]] = {
    "": lambda stem: None,
    "block": ANCHORS.get,
    "node": lambda stem: ANCHORS.get(stem, _whole),
}


def diff(
    model: Model,
    calls: Sequence[Sequence[int]],
    theirs: Mapping[str, F],
    route: Route,
    numerics: Numerics,
    anchor: str,
    seen: Callable[[str], None],
    start: Mapping[str, F] | None = None,
    views: Mapping[str, View] = ALL_WHOLE,
    apart: bool = False,
) -> Diff:
    """Run the calls in order, as one sequence, against a recorded run of the same; with a draft head if that had one.

    calls   the token ids of each call
    theirs  tap name -> array; call k >= 1 adds `@k`
    anchor  "", "block" or "node": whether the pass goes on with recorded numbers, see Anchored
    seen    called with the name of every tap, for a progress bar
    start   the recorded numbers that it goes on with, where they are not `theirs`
    views   tap name -> what of it theirs has, where that is not all
    apart   each call is a sequence of its own

    Errors as Model.session and Session.forward raise them.
    """
    anchored = Anchored(theirs if start is None else start, anchor, views)
    comparing = Comparing(theirs, anchored, seen, views)
    session = model.session(route, numerics, comparing, has_draft(theirs), shows_scores(theirs))
    for _ in run_calls(session, calls, comparing, anchored, apart=apart):
        pass
    lacking = [name for name in theirs if name not in comparing.rows]
    missing = [without_figures(name, (), theirs[name].size, LACKING) for name in lacking]
    return Diff([*comparing.rows.values(), *missing], comparing.logits, comparing.choices, comparing.errors)


def has_draft(names: Iterable[str]) -> bool:
    """Whether taps of a draft head are among these names."""
    return any(name.startswith("mtp_") for name in names)


def shows_scores(names: Iterable[str]) -> bool:
    """Whether attention's scores or weights are among the taps of these names."""
    return any(name.startswith(("kq-", "kq_soft_max-")) for name in names)
