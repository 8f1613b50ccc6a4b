"""Greedy tokens or text as the other side: of each token only is known that no other was likelier.

A run is compared by how far each of their tokens is from being its likeliest, in units of the spread of the logits. A token that is
within a near tie of the likeliest says nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import F, Ints
from ...compare.other_side import ALL, Other
from ...compare.views import View
from ...errors import DumpError
from ...forward.taps import in_call
from ...machine.boundary import from_json
from ...machine.files import text_of
from ...model.model import Model
from ...model.session import checked_tokens
from ...numerics import REFERENCE

TIE = 0.02  # of the spread of a token's logits: two that are nearer are not told apart
TOKENS = ("generated", "generated_ids", "output_ids", "completion_ids", "tokens", "ids")
TEXTS = ("text", "content", "completion", "generated_text", "output")


def of_tokens(model: Model, prompt: Sequence[int], chosen: Sequence[int], path: Path, route: str = "") -> Other:
    """What a program wrote greedily after a prompt, as the other side of a diagnosis: in one call, and `later` as it was made.

    TokenError for an id outside the vocabulary.
    """
    ids = checked_tokens([*prompt, *chosen], model.n_vocab)
    first = len(prompt)
    one = in_calls(model, [ids[:-1]], [ids[first:]], path, route)
    steps = [ids[:first], *(ids[i : i + 1] for i in range(first, len(ids) - 1))]
    return replace(one, later=in_calls(model, steps, [ids[i : i + 1] for i in range(first, len(ids))], path, route))


def in_calls(model: Model, calls: Sequence[Ints], chosen: Sequence[Ints], path: Path, route: str) -> Other:
    """A greedy run in some calls; `chosen` has for each the tokens that followed its last ones."""
    taps = {in_call("result_output", call): np.ones(len(tokens)) for call, tokens in enumerate(chosen)}

    def pair(tokens: Ints, ours: F, theirs: F) -> tuple[F, F]:
        return 1 + behind(ours[-len(tokens) :].astype(np.float64), tokens), theirs

    return Other(
        taps=taps,
        calls=[[int(t) for t in call] for call in calls],
        route=route or model.route().canonical,
        sha256="",
        who=f"{path}, {sum(map(len, chosen))} greedy tokens",
        arithmetic=REFERENCE,
        unknown=ALL,
        emitted=1,
        left_out={},
        views={tap: View(partial(pair, tokens), TIE) for tap, tokens in zip(taps, chosen, strict=True)},
        places={str(path): "result_output"},
    )


def behind(logits: F, tokens: Ints) -> F:
    """How far each token [k] is from being the likeliest of its logits [k, V], in units of their spread.

    Where all logits are alike, the first token is written, and any other is far from it.
    """
    spread = logits.std(axis=1)
    lost = logits.max(axis=1) - np.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return np.where(spread > 0, lost / np.maximum(spread, 1e-30), logits.argmax(axis=1) != tokens)


def read_written(model: Model, path: Path, prompt: Sequence[int]) -> list[int] | None:
    """The tokens that a program wrote after the prompt: a file of JSON with ids or a text, or of the text; None if it has none.

    DumpError if the text has no token, or is no JSON where it begins as such; FileError if it cannot be read.
    """
    text = text_of(path, errors="replace")
    if text.lstrip()[:1] not in ("{", "["):
        return of_text(model, path, prompt, text.removesuffix("\n"))
    return of_json(model, path, prompt, from_json(text, str(path), DumpError, "write a list of token ids, or the text as it is"))


def of_json(model: Model, path: Path, prompt: Sequence[int], said: Any) -> list[int] | None:
    """The tokens of a JSON value: a list of ids, or an object with ids or a text under a usual name."""
    values = said if isinstance(said, dict) else {"tokens": said}
    for name in TOKENS:
        ids = values.get(name)
        if isinstance(ids, list) and ids and all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            return ids[len(prompt) :] if ids[: len(prompt)] == list(prompt) and len(ids) > len(prompt) else ids
    text = next((values[name] for name in TEXTS if isinstance(values.get(name), str)), None)
    return None if text is None else of_text(model, path, prompt, text)


def of_text(model: Model, path: Path, prompt: Sequence[int], text: str) -> list[int]:
    """The tokens of a text that was written after a prompt. DumpError if it has none."""
    whole = model.tokenizer.decode(list(prompt))
    begins = text if text.startswith(whole) else whole + text
    ids: list[int] = model.tokenizer.encode(begins, add_special=False, parse_special=False)
    if ids[: len(prompt)] != list(prompt):
        ids = [*prompt, *model.tokenizer.encode(text.removeprefix(whole), add_special=False, parse_special=False)]
    if len(ids) <= len(prompt):
        raise DumpError(f"{path}: has no token after the prompt; give what the program wrote after it")
    return ids[len(prompt) :]
