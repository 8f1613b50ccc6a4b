"""The error budget: how much of the distance between llama.cpp and the truth is due to what, and what is left unexplained.

The truth is the float64 pass. One policy after another is switched to llama.cpp's (the ladder of numerics/llamacpp.py), the whole
pass runs again, and the step that a number takes is that policy's part; the last step, to what llama.cpp itself computed, is
unexplained. The steps add up to the distance, so the shares add up to one; a share is negative where a part cancels others.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..arrays import F, Matrix
from ..errors import TraceError
from ..forward.taps import in_call
from ..forward.trace import Recorder, Spool, Trace
from ..model.model import Model
from ..model.route import Route
from ..model.session import run_calls
from ..numerics import ORACLE, Numerics, ladder
from ..ops.ggml_paths import PATHS, QUANTIZERS
from .diff import Anchored
from .other_side import Other
from .rows import LogitRow, Row, compare_logits, ratio
from .verdict import judge

TRUTH, UNEXPLAINED = "truth", "unexplained"
KEPT = r"^(l_out-\d+|result_output)$"


@dataclass(frozen=True)
class Contribution:
    """A part of a distance.

    nmse   the part's own size, Σ part² / Σ truth²
    share  how much of the distance it makes, part·distance / distance²; all shares add up to 1
    """

    nmse: float
    share: float


@dataclass(frozen=True)
class Budget:
    """One tensor's distance and its parts.

    name      of the tap
    distance  of llama.cpp's from the truth, as NMSE
    parts     by name, the unexplained one last
    """

    name: str
    distance: float
    parts: Mapping[str, Contribution]


@dataclass(frozen=True)
class Flip:
    """The first activation that was rounded to another 8-bit code.

    matrix        the tensor whose product it enters
    tap           the name of that input
    row, column   which token, and which of its numbers
    ours, theirs  the codes, -128 to 127
    """

    matrix: str
    tap: str
    row: int
    column: int
    ours: int
    theirs: int

    def describe(self) -> str:
        """One line for a report: where it is, and both codes."""
        return (
            f"the input {self.tap} of {self.matrix} has code {self.ours} at token {self.row}, column {self.column}, "
            f"where llama.cpp's has {self.theirs}"
        )


@dataclass(frozen=True)
class Explanation:
    """What makes the distance between llama.cpp and the truth.

    budgets  of every block's output and of the logits, call by call
    tokens   llama.cpp's logits against the truth's, token by token
    left     the unexplained NMSE of each of those tokens
    first    the first operation that is wrong when each starts from llama.cpp's own input; None if there is none
    flip     where the runs part, if each operation is right and yet something is left; else None
    """

    budgets: Sequence[Budget]
    tokens: Sequence[LogitRow]
    left: Sequence[float]
    first: Row | None
    flip: Flip | None

    @property
    def explained(self) -> bool:
        """Whether no operation is wrong."""
        return self.first is None

    def verdicts(self) -> list[str]:
        """For each token: UNEXPLAINED, NEAR TIE (explained, but rounding decides which token is best), or EXPLAINED."""
        return [self._verdict(row, left) for row, left in zip(self.tokens, self.left, strict=True)]

    def _verdict(self, row: LogitRow, left: float) -> str:
        if left > 0 and not self.explained:
            return "UNEXPLAINED"
        return "NEAR TIE" if row.top1_ours != row.top1_theirs else "EXPLAINED"


def explain(
    model: Model,
    route: Route,
    other: Other,
    folder: Path,
    full: Model | None = None,
    anchor: str = "",
    seen: Callable[[str], None] = lambda name: None,
) -> Explanation:
    """Explain what a llama.cpp computed.

    folder  where the passes may leave their traces
    full    the same model in a higher precision; then the weights' quantization is a part too
    anchor  "block": every pass starts each block from llama.cpp's own input, so that no block explains another's distance
    seen    called with what is being computed

    TraceError if the other side is no llama.cpp whose arithmetic is known, or `full` is another model, or there are no logits.
    """
    emulated = other.arithmetic.emulates
    if emulated is None:
        raise TraceError(f"--explain: {other.who} is not a llama.cpp; compare without --explain, or with a live llama.cpp")
    if any(in_call("result_output", call) not in other.taps for call in range(len(other.calls))):
        raise TraceError(f"--explain: {other.who} kept no logits; record them without --filter")
    if full is not None and (full.architecture, full.hp, full.n_vocab) != (model.architecture, model.hp, model.n_vocab):
        raise TraceError(
            f"--full {full.path}: is not the same model as {model.path}; its hyperparameters differ; give the file that it "
            "was quantized from"
        )
    steps: dict[str, tuple[Model, Numerics]] = {TRUTH: (full or model, ORACLE)}
    if full is not None:
        steps["weights"] = (model, ORACLE)
    steps |= {name: (model, num) for name, num in ladder(emulated.profile, emulated.build).items()}
    traces = dict[str, Trace]()
    for name, (who, num) in steps.items():
        path = folder / f"{len(traces)}.safetensors"
        traces[name] = run(who, route, num, other, anchor, path, partial(show_step, seen, name))
    runs = [*traces.values(), other.taps]
    names = [name for name in traces[TRUTH] if name in other.taps]
    for name in names:
        if other.taps[name].size != traces[TRUTH][name].size:
            raise TraceError(
                f"--explain: {name} of {other.who} has shape {other.taps[name].shape}, not that of this model; record it "
                "again with this file"
            )
    budgets = [budget(name, [trace[name] for trace in runs], [*list(steps)[1:], UNEXPLAINED]) for name in names]
    tokens, left = beside_the_truth(traces[TRUTH], traces["order"], other)
    first = judge(model, route, other, seen).first
    lost = max(b.parts[UNEXPLAINED].nmse for b in budgets) > 0
    flip = first_flip(model, route, other) if first is None and lost else None
    return Explanation(budgets, tokens, left, first, flip)


def show_step(seen: Callable[[str], None], step: str, tap: str) -> None:
    """Report a tap of a step: call `seen` with both names."""
    seen(f"{step} {tap}")


def run(
    model: Model,
    route: Route,
    num: Numerics,
    other: Other,
    anchor: str,
    path: Path,
    seen: Callable[[str], None],
) -> Trace:
    """A pass under that numerics, whose block outputs and logits are kept in the file `path`: its trace."""
    with Spool(path, {}) as writer:
        recorder, anchored = Recorder(writer, KEPT, seen), Anchored(other.taps, anchor)
        session = model.session(route, num, lambda name, x: anchored(name, recorder(name, x)))
        for _ in run_calls(session, other.calls, recorder, anchored):
            pass
    return Trace(path)


def budget(name: str, runs: Sequence[F], steps: Sequence[str]) -> Budget:
    """The budget of tap `name`.

    runs   its arrays, the truth's first and llama.cpp's last
    steps  the names of the steps between them
    """
    flat = [np.asarray(x, np.float64).ravel() for x in runs]
    truth, distance = flat[0], flat[-1] - flat[0]
    energy, length = float(truth @ truth), float(distance @ distance)
    taken = {step: b - a for step, (a, b) in zip(steps, pairwise(flat), strict=True)}
    parts = {
        step: Contribution(ratio(float(x @ x), energy), float(x @ distance) / length if length else 0.0)
        for step, x in taken.items()
    }
    return Budget(name, ratio(length, energy), parts)


def beside_the_truth(truth: Trace, emulated: Trace, other: Other) -> tuple[list[LogitRow], list[float]]:
    """For each token: llama.cpp's logits against the truth's, and the NMSE between the emulation's and llama.cpp's."""
    rows, left = list[LogitRow](), list[float]()
    for call, tokens in enumerate(other.calls):
        name = in_call("result_output", call)
        exact, ours, theirs = (np.asarray(x[name], np.float64).reshape(len(tokens), -1) for x in (truth, emulated, other.taps))
        rows += compare_logits(exact, theirs)
        left += [ratio(float((a - b) @ (a - b)), float(b @ b)) for a, b in zip(ours, theirs, strict=True)]
    return rows, left


class Watching:
    """A tapper, and a product, that look for the first 8-bit code of an input that llama.cpp's own numbers do not give.

    theirs  tap name -> array
    num     the numerics whose products these are
    flip    what was found; None so far
    """

    def __init__(self, theirs: Mapping[str, F], num: Numerics) -> None:
        self.theirs, self.num, self.call = theirs, num, 0
        self.recent = deque[tuple[str, F]](maxlen=16)  # a product's input is one of the last arrays that were shown
        self.flip: Flip | None = None

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        self.call = call

    def __call__(self, name: str, x: F) -> F:
        self.recent.append((in_call(name, self.call), x))
        return x

    def linear(self, w: Matrix, x: F) -> F:
        """The product w [O, I] with x [T, I] of the numerics, [T, O], after a look at the codes of x."""
        tap = next((name for name, shown in self.recent if shown is x), "")
        if self.flip is None and tap in self.theirs and w.type in PATHS:
            quantize = QUANTIZERS[PATHS[w.type].partner]
            ours, theirs = (quantize(a).codes.reshape(x.shape) for a in (x, self.theirs[tap].reshape(x.shape)))
            for row, column in np.argwhere(ours != theirs)[:1]:
                codes = int(ours[row, column]), int(theirs[row, column])
                self.flip = Flip(w.name, tap, int(row), int(column), *codes)
        return self.num.linear(w, x)


def first_flip(model: Model, route: Route, other: Other) -> Flip | None:
    """Where a run of ours, with nothing replaced, first rounds an activation to another code than llama.cpp's run did.

    None if it never does.
    """
    num = other.arithmetic
    watching = Watching(other.taps, num)
    session = model.session(route, replace(num, linear=watching.linear), watching)
    for _ in run_calls(session, other.calls, watching):
        pass
    return watching.flip
