"""Logits, or log-probabilities of some tokens, as text: numbers, `index: number` lines, JSON, and answers of servers.

Numbers: one line for each token, or one number a line for the last token. JSON: a list of numbers, a list of such lists, or an
object with one under `logits` or `logprobs`, and `tokens`. Answers: those of the OpenAI interface (`choices`, with `logprobs`) and
of llama-server (`completion_probabilities`), whose tokens follow the prompt.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DumpError
from ..machine.boundary import from_json
from ..machine.files import contents, text_of
from .dump import Dump, Numbers, Said

INDEXED = re.compile(r"\s*(\d+)\s*:\s*(\S+)\s*")
MOST = 1 << 28  # bytes of text


def read_text(path: Path) -> Dump:
    """The numbers of a text file. DumpError for a text that is not numbers."""
    lines = [line for line in text_of(path, MOST, "replace").splitlines() if line.strip()]
    try:
        if lines and all(INDEXED.fullmatch(line) for line in lines):
            pairs = {int(m[1]): float(m[2]) for m in map(INDEXED.fullmatch, lines) if m}
            if sorted(pairs) != list(range(len(lines))):
                raise DumpError(f"{path}: its indexes are not 0 to {len(lines) - 1}, each once; was it cut?")
            rows = [[pairs[i] for i in range(len(lines))]]
        else:
            rows = [[float(word) for word in re.split(r"[\s,;]+", line.strip().strip("[],;")) if word] for line in lines]
    except ValueError:
        raise DumpError(
            f"{path}: is text, but not numbers, and not a log of llama-eval-callback; docs/formats.md lists formats"
        ) from None
    if len(rows) > 1 and all(len(row) == 1 for row in rows):
        rows = [[row[0] for row in rows]]
    return Dump(path, "logits as text", {"logits": written(rows, f"{path}")})


def written(rows: Sequence[Sequence[float]], where: str, log: bool = False) -> Numbers:
    """Rows of numbers that were written with a few digits: six significant ones, as C and C++ print by default.

    DumpError if there are none, or rows of different lengths.
    """
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise DumpError(f"{where}: has rows of {sorted({len(row) for row in rows})} numbers; expected the same in each")
    values = np.array(rows, np.float64)
    return Numbers(values.shape, "F64", lambda: values, step=digits(values), log=log)


def digits(values: Any) -> Any:
    """How far each number may be from what was computed: half of its sixth digit, if no number has more; else nothing."""
    sample = values.ravel()[:256]
    if any(float(f"{x:.6g}") != x for x in sample):
        return 0.0
    return 0.5 * 10.0 ** (np.floor(np.log10(np.maximum(np.abs(values), 1e-30))) - 5)


def read_json(path: Path) -> Dump | None:
    """The logits or log-probabilities of a JSON file; None if it has neither. DumpError for one that is damaged."""
    said = from_json(contents(path, MOST), str(path), DumpError, "write it again")
    if isinstance(said, dict) and ("choices" in said or "completion_probabilities" in said):
        return Dump(path, "an answer of a server", {}, answer=list(answer(said, path)))
    tokens = said.get("tokens") if isinstance(said, dict) else None
    for key in ("logits", "logprobs", "log_probs"):
        rows = said.get(key) if isinstance(said, dict) else said if key == "logits" else None
        if isinstance(rows, list) and rows:
            rows = rows if isinstance(rows[0], list) else [rows]
            if all(isinstance(x, int | float) for row in rows for x in (row if isinstance(row, list) else [None])):
                calls = [[int(t) for t in tokens]] if isinstance(tokens, list) else None
                return Dump(path, "logits as JSON", {"logits": written(rows, str(path), key != "logits")}, calls)
    return None


def answer(value: Mapping[str, Any], path: Path) -> Iterator[Said]:
    """The positions of a server's answer: what was chosen, and the log-probabilities that are there.

    DumpError if it has none: the server was not asked for them.
    """
    listed = value.get("completion_probabilities")
    if not isinstance(listed, list):
        choice = (value.get("choices") or [{}])[0]
        probs = choice.get("logprobs") if isinstance(choice, dict) else None
        listed = probs.get("content") if isinstance(probs, dict) else None
        if isinstance(probs, dict) and isinstance(probs.get("top_logprobs"), list):  # of /v1/completions
            words = zip(probs.get("tokens", []), probs.get("token_logprobs", []), probs["top_logprobs"])
            listed = [
                {"token": token, "logprob": own, "top_logprobs": [{"token": t, "logprob": x} for t, x in (likely or {}).items()]}
                for token, own, likely in words
            ]
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise DumpError(
            f"{path}: the answer has no log-probabilities; ask for logprobs (n_probs of llama-server), and greedy tokens"
        )
    for entry in listed:
        likely = entry.get("top_logprobs") or []
        pairs = [*likely, entry] if isinstance(likely, list) else [entry]
        found = {word(one): float(one["logprob"]) for one in pairs if isinstance(one.get("logprob"), int | float)}
        yield Said(word(entry), found)


def word(entry: Mapping[str, Any]) -> int | bytes:
    """A token of an answer: its id, or the bytes of its text."""
    if isinstance(entry.get("id"), int):
        return int(entry["id"])
    raw = entry.get("bytes")
    if isinstance(raw, list) and all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return bytes(raw)
    return str(entry.get("token", "")).encode()
