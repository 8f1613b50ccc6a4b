"""A ledger in the formats of other tools: the lines of circuit-finder's sweeps, Ng's results, Parquet."""

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import SweepError
from ..machine.files import whole
from .results import Result, Results

THEIRS = {"math": "math_score", "eq": "eq_score", "reasoning": "reasoning_score"}
"""The last word of a probe's kind -> circuit-finder's field. Its EQ scores are on 0 to 100, as ours of that family are."""


def lines(found: Results, rows: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """One record a route with circuit-finder's fields, the unrouted model first.

    dup_start, dup_end  the window, its end exclusive; -1 of the unrouted model, null where the route is no single window
    n_dup_layers        positions beyond the model's own
    route               the canonical text; layers: all source blocks in order
    scores              probe -> mean over the questions that were answered
    n                   how many those are, over all probes; n_by_probe: for each
    """
    for row in sorted(rows, key=lambda row: not row.route.is_identity):
        means = {name: mean for name in found.about.probes if (mean := row.mean(name)) is not None}
        window, base = row.window, row.route.is_identity
        start, end = (-1, -1) if base else window or (None, None)
        yield {
            **({"is_baseline": True} if base else {}),
            "dup_start": start,
            "dup_end": end,
            "n_dup_layers": len(row.route.layers) - row.route.n_layer,
            **{THEIRS[kind]: mean for name, mean in means.items() if (kind := kind_of(name)) in THEIRS},
            "route": row.route.canonical,
            "layers": list(row.route.layers),
            "scores": means,
            "n": row.n,
            "n_by_probe": {name: len(scores) for name, scores in row.scores.items()},
            "seconds": row.seconds,
            "note": row.note,
            "timestamp": row.at,
        }


def kind_of(probe: str) -> str:
    """The last word of a probe's kind: math of ng-math, cf-math and math:file."""
    return probe.partition(":")[0].rpartition("-")[2]


def as_jsonl(found: Results, rows: Sequence[Result]) -> str:
    """The records as lines of JSON."""
    return "".join(json.dumps(line) + "\n" for line in lines(found, rows))


def as_ng(found: Results, rows: Sequence[Result], probe: str) -> dict[tuple[int, ...], dict[str, Any]]:
    """Ng's results of one probe: source blocks -> {score, responses: [{qid, raw_output, score}]}.

    Probes that write nothing have empty raw outputs.
    """
    out = {}
    for row in rows:
        scores, texts = row.scores.get(probe, []), row.texts.get(probe, [])
        answers = [{"qid": str(i), "raw_output": texts[i] if texts else "", "score": score} for i, score in enumerate(scores)]
        if answers:
            out[row.route.layers] = {"score": row.mean(probe), "responses": answers}
    return out


def write_ng(found: Results, rows: Sequence[Result], probe: str, path: Path) -> None:
    """Write Ng's results as the pickle that his tools read. FileError if it cannot be written."""
    with whole([path]) as (file,):
        file.write(pickle.dumps(as_ng(found, rows, probe), protocol=4))


def write_parquet(found: Results, rows: Sequence[Result], path: Path) -> None:
    """Write the records as Parquet, a column for each probe. SweepError without pyarrow, FileError if it cannot be written."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SweepError("Parquet needs pyarrow: pip install 'refmodel[parquet]'") from None
    table = []
    for line in lines(found, rows):
        scores, counts = line.pop("scores"), line.pop("n_by_probe")
        line.setdefault("is_baseline", False)
        named = {f"score:{name}": scores.get(name) for name in found.about.probes}
        table.append(line | named | {f"n:{name}": counts.get(name, 0) for name in found.about.probes})
    with whole([path]) as (file,):
        parquet.write_table(pyarrow.Table.from_pylist(table), file)
