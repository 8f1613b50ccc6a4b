"""What a program has to be for the laws: two functions in a Python file, the adapter.

    def rule(q, k, v, log_decay, beta, state):      # the gated delta rule; needed
        ...
        return outputs, state_after

    def conv(x, w, before):                         # the causal convolution before it; may be left out
        ...
        return outputs, after

    TOLERANCE = 1e-4                                # of single precision; may be left out

All arrays are NumPy's, float32, and the adapter turns them into what its program has: torch, JAX, a C library, an HTTP endpoint.
docs/trust.md has an adapter for transformers.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..arrays import F
from ..errors import FileError
from ..numerics import NUMPY, REFERENCE, Numerics

Rule = Callable[[F, F, F, F, F, F], tuple[F, F]]
"""(q, k [T, H, Dk], v [T, H, Dv], log_decay, beta [T, H], state [H, Dv, Dk]) -> outputs [T, H, Dv] and the state after them.

Keys have unit norm; every head has its own; queries are used as they are given. log_decay is g, natural log, at most 0.
"""

Conv = Callable[[F, F, F], tuple[F, F]]
"""(x [T, C], w [C, K], before [K-1, C]) -> outputs [T, C] and what is remembered after them, [K-1, C].

Tap K-1 of w multiplies the token itself; `before` has the inputs of the last K-1 tokens. Nothing is added, no SiLU follows.
"""

# Of the largest number that is compared. Single precision rounds to 6e-8; a sum over 130 tokens adds a hundred of these, and the
# triangular system of a chunk of 64 tokens multiplies them by its condition number, some hundreds for random keys.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Engine:
    """A program under the laws.

    name       for reports
    tolerance  the largest difference that is taken for rounding, of the largest number compared
    """

    name: str
    rule: Rule
    conv: Conv | None = None
    tolerance: float = TOLERANCE


def of_numerics(num: Numerics) -> Engine:
    """Our own delta rule and convolution under a numerics."""

    def rule(q: F, k: F, v: F, log_decay: F, beta: F, state: F) -> tuple[F, F]:
        after = np.empty_like(state)
        return num.gated_delta_rule(q, k, v, log_decay, beta, state, after), after

    def conv(x: F, w: F, before: F) -> tuple[F, F]:
        whole = np.concatenate([before, x])
        return num.causal_conv1d(whole, w), whole[len(whole) - len(before) :]

    return Engine(f"refmodel, {num.name}", rule, conv)


OURS = {"numpy": NUMPY, "reference": REFERENCE}


def engine_of(words: str) -> Engine:
    """The engine of --engine: an adapter's file, or one of ours by name. FileError for a file that is none."""
    if words in OURS:
        return of_numerics(OURS[words])
    path = Path(words)
    if not path.is_file():
        raise FileError(f"--engine {words}: no such file; give an adapter, or one of {', '.join(OURS)}")
    found = module(path)
    rule = getattr(found, "rule", None)
    if not callable(rule):
        raise FileError(f"--engine {words}: has no function `rule`; refmodel/laws/engine.py says what an adapter has")
    return Engine(path.stem, rule, getattr(found, "conv", None), float(getattr(found, "TOLERANCE", TOLERANCE)))


def module(path: Path) -> ModuleType:
    """A Python file, run. What it raises is its author's to see."""
    spec = importlib.util.spec_from_file_location(f"engine_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
