"""Logits as what the head read: all that a fault before the head can change lies in the span of the head's columns.

Logits [V] are the head's matrix [V, E] times the last hidden state [E], so a difference that a fault makes has E numbers, not V;
what is left over is noise that was added to the logits themselves, and it says how large that is. So a fault is seen through noise
that is larger than it, and what remains can be told from noise without a guess of its size.
"""

from dataclasses import dataclass

import numpy as np

from ...arrays import F, Ints
from ...compare.other_side import Other
from ...compare.views import View
from ...faults.fault import Engine
from ...forward.taps import in_call
from ...numerics import ORACLE

ROWS = 4096  # of the head that are looked at
LEAST = 1.05  # rows for each column, at least: else nothing is left over


@dataclass(frozen=True)
class Span:
    """The span of the head's columns, of some rows, and of a constant: log-probabilities are logits plus a constant.

    rows   [R] the tokens of the vocabulary that are looked at
    basis  [R, E+1] orthonormal columns
    softcap  c in c * tanh(x / c), which is undone; 0 for none
    """

    rows: Ints
    basis: F
    softcap: float

    def parts(self, error: F) -> tuple[float, float]:
        """The size of errors [T, R] in the span and outside of it, for each degree of freedom: mean squares."""
        inside = error @ self.basis
        inner, whole = float(np.sum(inside * inside)), float(np.sum(error * error))
        R, n = self.basis.shape
        return inner / (len(error) * n), max(whole - inner, 0.0) / (len(error) * (R - n))

    def of(self, logits: F) -> F:
        """What of logits [T, V] is looked at, [T, R], float64, before the softcap."""
        x = logits[:, self.rows].astype(np.float64)
        if not self.softcap:
            return x
        return self.softcap * np.arctanh(np.clip(x / self.softcap, -1 + 1e-12, 1 - 1e-12))


def span_of(engine: Engine, other: Other) -> Span | None:
    """The span of the head's columns; None where the other side has no whole logits, or the vocabulary is too small."""
    w, tap = engine.model.output, in_call("result_output", 0)
    if tap not in other.taps or not whole(other.views.get(tap)):
        return None
    V, E = w.shape
    R = min(V, max(ROWS, round(LEAST * (E + 1))))
    if R < LEAST * (E + 1):
        return None
    rows = np.unique(np.linspace(0, V - 1, R).astype(np.int64))
    columns = ORACLE.embed(w, rows, np.float64)  # rows of the head, as those of an embedding
    basis, _ = np.linalg.qr(np.concatenate([columns, np.ones((len(rows), 1))], axis=1))
    return Span(rows, basis, engine.model.hp.softcap)


def whole(view: View | None) -> bool:
    """Whether a view of logits has whole rows, or is none."""
    return view is None or bool(view.rows)
