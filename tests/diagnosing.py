"""What an engine writes of a run, for tests of the diagnosis: everything, hidden states, logits, probabilities, greedy tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refmodel.compare.dumped import of_dump
from refmodel.compare.other_side import Other
from refmodel.dumps.dump import Dump, Numbers
from refmodel.faults.fault import Engine
from refmodel.forward.taps import in_call
from refmodel.model.model import Model

GREEDY = 32  # tokens that are written
LIKELIEST = 20  # log-probabilities of a token
EVIDENCE: Mapping[str, Callable[[str], bool]] = {
    "full": lambda tap: True,
    "hidden": lambda tap: tap.startswith(("l_out-", "result_output")),
    "logits": lambda tap: tap.startswith("result_output"),
    "last": lambda tap: tap.startswith("result_output"),
    "top": lambda tap: tap.startswith("result_output"),
    "greedy": lambda tap: False,
}


def taps_of(engine: Engine, calls: Sequence[Sequence[int]], keeps: Callable[[str], bool]) -> dict[str, Any]:
    """The taps of an engine's run, float32."""
    out: dict[str, Any] = {}
    now = {"call": 0}

    def tapper(name: str, x: Any) -> Any:
        if keeps(name):
            out[in_call(name, now["call"])] = np.array(x, np.float32)
        return x

    session = engine.session(tapper=tapper)
    for now["call"], tokens in enumerate(engine.feed(calls)):
        session.forward(tokens)
    return out


def written(engine: Engine, calls: Sequence[Sequence[int]], evidence: str, noise: float, r: Any) -> dict[str, Numbers]:
    """What an engine writes, as a reader of dumps gives it; `noise` is the NMSE of what is added to logits."""
    if evidence == "greedy":
        return {"greedy": greedy(engine, calls)}
    arrays = taps_of(engine, calls, EVIDENCE[evidence])
    for tap in [tap for tap in arrays if tap.startswith("result_output")]:
        x = arrays[tap]
        if noise:
            x = x + np.float32(np.sqrt(noise * np.mean(x * x))) * r.standard_normal(x.shape).astype(np.float32)
        arrays[tap] = x[-1:] if evidence in ("last", "top") else x
    numbers = {tap: Numbers(x.shape, "F32", lambda x=x: x) for tap, x in arrays.items()}
    return {tap: likeliest(n, calls) if evidence == "top" else n for tap, n in numbers.items()}


def likeliest(n: Numbers, calls: Sequence[Sequence[int]]) -> Numbers:
    """The log-probabilities of the likeliest tokens, of the last one only."""
    x = n.read().astype(np.float64)
    x = x - x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    at = np.sort(np.argsort(-x[0])[:LIKELIEST])
    values = x[0][at]
    return replace(n, read=lambda: values, at=at, log=True, rows=np.array([len(calls[0]) - 1]), step=1e-6)


def greedy(engine: Engine, calls: Sequence[Sequence[int]]) -> Numbers:
    """The tokens that an engine writes after the prompt."""
    session = engine.session()
    ids = [int(session.forward(calls[0], "last").argmax())]
    while len(ids) < GREEDY:
        ids.append(int(session.forward(ids[-1:], "last").argmax()))
    return Numbers((GREEDY,), "I64", lambda: np.array(ids, np.float64))


def dumped(model: Model, numbers: Mapping[str, Numbers], calls: Sequence[Sequence[int]]) -> Other:
    """What was written, as the other side of a diagnosis."""
    if "greedy" in numbers:
        from refmodel.faults.diagnosis.greedy import of_tokens

        return of_tokens(model, calls[0], [int(t) for t in numbers["greedy"].read()], Path("run"))
    return of_dump(model, Dump(Path("run"), "arrays", numbers, calls), None, model.route())


def rounded(a: Any, b: Any) -> float:
    """NMSE of two arrays; infinite for other sizes."""
    if a.size != b.size:
        return float("inf")
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return float(((a - b) ** 2).sum() / max((b * b).sum(), 1e-300))
