"""The proof by computing: the file and its source run side by side, and llama.cpp runs the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import F
from ...errors import OracleEndedError, OracleError, RefmodelError, RouteError
from ...llamacpp.profile import PROFILES
from ...machine.partial import temporary_folder
from ...model.model import Model, load
from ...numerics import ORACLE, REFERENCE
from ..copy_map import Plan
from ..runtimes import one_kind
from .report import Check, Options

PROMPT, STEPS = 5, 2  # tokens of the forward proof: read at once, and fed one at a time


def few_tokens(n_vocab: int) -> list[int]:
    """A few token ids, spread over the vocabulary."""
    return [(2 * i + 1) * n_vocab // (2 * (PROMPT + STEPS)) for i in range(PROMPT + STEPS)]


def calls_of(n_vocab: int, options: Options) -> list[list[int]]:
    """The calls of the forward proof: the prompt, then single tokens."""
    ids = list(options.tokens) or few_tokens(n_vocab)
    first = ids[: max(PROMPT, len(ids) - STEPS)] if len(ids) > PROMPT else ids[: max(1, len(ids) - STEPS)]
    return [first, *([token] for token in ids[len(first) :])]


class Outputs:
    """A tapper that keeps each block's output and the logits."""

    def __init__(self, seen: Callable[[str], None]) -> None:
        self.seen, self.kept = seen, dict[str, F]()

    def __call__(self, name: str, x: F) -> F:
        if name.startswith("l_out") or name == "result_output":
            self.seen(name)
            self.kept[name] = x.copy()
        return x


def check_forward(
    check: Check, path: Path, model: Model, plan: Plan, options: Options, widened: bool = False, rounded: bool = False
) -> None:
    """Run the source under the route, and the file in its own order, and compare every bit in prefill and decode.

    widened  the file has the same values in other types: both run in float64, where their bits are equal too
    rounded  some values differ in their last bits: outputs may differ by ROUNDED, relative to their norms
    """
    try:
        copy = load(path)
        if copy.n_layer != len(plan.route.layers):
            raise RouteError(
                f"{path}: has {copy.n_layer} blocks before those for prediction, the route "
                f"{len(plan.route.layers)}; write the copy again"
            )
    except RefmodelError as error:
        check.found("loading", str(error))
        return
    ours, theirs = Outputs(options.seen), Outputs(options.seen)
    num = ORACLE if widened else REFERENCE
    under_route, alone = model.session(plan.route, num, tapper=ours), copy.session(numerics=num, tapper=theirs)
    for call, tokens in enumerate(calls_of(model.n_vocab, options)):
        under_route.forward(tokens)
        alone.forward(tokens)
        for name, a in ours.kept.items():
            agree = same_numbers if rounded else same_bits
            agree(check, name, a, theirs.kept[name], f"call {call} of {len(tokens)} tokens: ")
        if check.findings:
            return  # all that follows differs too


def same_bits(check: Check, name: str, a: F, b: F, when: str = "") -> None:
    """A finding if the copy's `b` has other bits than the source's `a`."""
    check.compared += 1
    if a.shape != b.shape:
        check.found(name, f"has shape {b.shape}; the source under the route has {a.shape}")
    elif differ := int((bits(a) != bits(b)).sum()):
        check.found(name, f"{when}{differ} of {a.size} numbers have other bits")


ROUNDED = 1e-4  # as of two runs in float32: the last bits of a few weights leave 1e-6


def same_numbers(check: Check, name: str, a: F, b: F, when: str = "") -> None:
    """A finding if the copy's `b` is further than rounding from the source's `a`."""
    check.compared += 1
    apart = np.inf if a.shape != b.shape else float(np.linalg.norm(a - b) / (np.linalg.norm(a) or 1.0))
    if not apart <= ROUNDED:
        check.found(name, f"{when}differs by {apart:.1e} relative to its norm; the last bits of the weights leave {ROUNDED:.0e}")


def bits(x: F) -> Any:
    """The numbers as unsigned integers, flat."""
    return np.ascontiguousarray(x).reshape(-1).view(f"u{x.itemsize}")


def check_llamacpp(check: Check, path: Path, model: Model, plan: Plan, options: Options) -> None:
    """Run the file in llama.cpp, and compare our run of the source under the route with it, operation by operation."""
    from ...compare.verdict import judge
    from ..live import of_file

    if kind := one_kind(model, plan):
        check.skipped = f"llama.cpp aborts on a hybrid model with blocks of one kind only, and this has only {kind} blocks"
        return
    with temporary_folder() as folder:
        options.seen("llama.cpp")
        try:
            other = of_file(path, model, plan.route, calls_of(model.n_vocab, options), PROFILES["exact"], options.lib, folder)
        except OracleError as error:
            if not isinstance(error, OracleEndedError) and "is not loaded" not in str(error):
                raise
            check.found("llama.cpp", str(error))
            return
        verdict = judge(model, plan.route, other, options.seen)
    check.compared = len(verdict.rows)
    for row in verdict.rows.values():
        if not row.within:
            check.found(row.name, row.problem or f"NMSE {row.nmse:.1e} to {other.who}; rounding explains {row.allowed:.0e}")
